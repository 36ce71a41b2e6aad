"""Cases by number, from the command line: ``python -m hostile --from 0 --to 5000``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter

from .check import problems
from .draw import draw


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hostile", description=__doc__)
    parser.add_argument("case", type=int, nargs="*", help="numbers of cases")
    parser.add_argument("--from", type=int, default=0, dest="start")
    parser.add_argument("--to", type=int, default=1000)
    asked = parser.parse_args()
    logging.getLogger("pdex_gpu").addHandler(logging.NullHandler())
    wrong: Counter[str] = Counter()
    for seed in asked.case or range(asked.start, asked.to):
        found = problems(seed)
        if found:
            print(draw(seed))
            print(*(f"    {line}" for line in found), sep="\n", flush=True)
            wrong[draw(seed).entry] += 1
    print(f"{wrong.total()} cases have wrong answers: {dict(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
