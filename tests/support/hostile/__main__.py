"""Cases by number, from the command line."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from .campaign import campaign
from .child import driver_of
from .record import Tally, write


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hostile",
        description="Run cases of a driver: those of the numbers given, or a range of them.",
    )
    parser.add_argument("driver", choices=["calls", "files", "faults"])
    parser.add_argument("number", type=int, nargs="*", help="numbers of cases")
    parser.add_argument("--from", type=int, default=0, dest="start", help="first of a range")
    parser.add_argument("--to", type=int, default=1000, help="end of the range, left out")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--record", type=Path, help="JSON file for what came of the cases")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes are ended
    driver = driver_of(asked.driver)
    numbers = asked.number or range(asked.start, asked.to)
    tally = Tally(asked.driver, numbers, asked.jobs, getattr(driver, "BUDGET", 0))
    for done in campaign(asked.driver, numbers, asked.jobs):
        tally.add(done)
        if asked.number or done.verdict.problems:
            print(driver.draw(done.seed))
            for line in done.verdict.problems:
                print(f"    {line}")
        if asked.number:
            what = "wrong" if done.verdict.problems else done.verdict.outcome
            print(f"    {what}, {done.seconds:.2f} s, {done.peak / 1e6:.0f} MB")
        sys.stdout.flush()
    found = tally.content()
    print(
        f"{tally.n_cases} cases in {found['seconds']:.0f} s: {found['right']} right, "
        f"{found['one_error']} with one error {found['errors']}, "
        f"{found['undetectable_changes']} undetectable changes, {len(tally.failed)} wrong "
        f"{dict(tally.wrong)}; worst peak {found['worst_peak_bytes'] / 1e6:.0f} MB"
    )
    if asked.record:
        write(asked.record, [tally])
    return int(bool(tally.failed))


if __name__ == "__main__":
    sys.exit(main())
