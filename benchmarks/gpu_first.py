"""The first half hour on a GPU: everything that only a GPU can tell, in one record.

    python benchmarks/gpu_first.py               on a machine with a CUDA driver
    python benchmarks/gpu_first.py --emulated    on the emulated device, to see that it runs

Run again, it continues: what held or did not is kept, what failed or was left out is tried again.
See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
for _folder in (HERE, HERE.parent):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from gpu_first_page import page  # noqa: E402
from gpu_first_record import (  # noqa: E402
    FAILED,
    HELD,
    LEFT_OUT,
    NOT_HELD,
    RESULTS,
    FirstRecord,
    Outcome,
    RecordError,
)
from gpu_first_steps import STEPS, Run  # noqa: E402

ALL_HELD, STEP_FAILED, WRONG_OPTIONS, UNMET, NO_DEVICE, NOT_COMPLETE = 0, 1, 2, 3, 4, 6
STOPPED = 130
LIMIT = float(sum(step.limit for step in STEPS.values()))
_LEAST = 5.0  # seconds without which no step is worth starting


class NoDevice(Exception):
    """No kernel runs here, so there is nothing to record."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog=f"Exit status: {ALL_HELD} all held; {STEP_FAILED} a step failed; {WRONG_OPTIONS} "
        f"wrong options; {UNMET} a target or a prediction did not hold; {NO_DEVICE} no device can "
        f"be used; {NOT_COMPLETE} nothing failed, but a step was left out or not judged; "
        f"{STOPPED} stopped.",
    )
    add = parser.add_argument
    add("--emulated", action="store_true", help="the emulated device stands in; nothing is judged")
    add("--again", action="store_true", help="start over, where there is a record already")
    add("--only", nargs="+", choices=STEPS, metavar="STEP", help=f"of {', '.join(STEPS)}")
    add("--limit", type=float, default=LIMIT, help="seconds for everything (default %(default).0f)")
    add("--counts", type=Path, help="record of ptx_counts.py (default: the newest in results/)")
    add("--record", type=Path, help="the JSON (default results/gpu_first-DATE.json)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    path = options.record or RESULTS / f"gpu_first-{date.today().isoformat()}.json"
    counts = options.counts or max(RESULTS.glob("ptx_counts-*.json"), default=None)
    if counts is None or not counts.is_file():
        print("there is no record of counts: run ptx_counts.py first", file=sys.stderr)
        return WRONG_OPTIONS
    try:
        record = FirstRecord(path, emulated=options.emulated, again=options.again)
    except RecordError as error:
        print(error, file=sys.stderr)
        return WRONG_OPTIONS
    record.content["counts"] = counts.name
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    with tempfile.TemporaryDirectory(prefix="gpu-first-") as folder:
        run = Run(record, json.loads(counts.read_text()), Path(folder))
        try:
            code = _steps(run, options)
        except RecordError as error:
            print(error, file=sys.stderr)
            return WRONG_OPTIONS
        except NoDevice:
            return NO_DEVICE
        except KeyboardInterrupt:
            print("stopped; run it again to continue", file=sys.stderr)
            code = STOPPED
        finally:
            signal.signal(signal.SIGTERM, before)
    record.write()
    text = page(record.content, list(STEPS), path.name)
    path.with_suffix(".md").write_text(text, "utf-8")
    print(text)
    print(f"recorded in {path} and {path.with_suffix('.md').name}", file=sys.stderr)
    return code


def _steps(run: Run, options: argparse.Namespace) -> int:
    """Run what is not done yet; the exit status."""
    until = time.monotonic() + options.limit
    record = run.record
    for name, step in STEPS.items():
        asked = name in options.only if options.only else not record.is_done(name)
        if name != "probe" and not asked:
            continue
        start = time.monotonic()
        limit = min(step.limit, until - start)
        print(f"{name}, at most {max(0, limit):.0f} s ...", file=sys.stderr, flush=True)
        if limit < _LEAST:
            found = Outcome(LEFT_OUT, f"the {options.limit:.0f} s were spent; run again to go on")
        else:
            run.begin(limit)
            try:
                found = step.do(run)
            except RecordError:
                raise
            except Exception as error:
                found = Outcome(FAILED, f"{type(error).__name__}: {error}")
        print(f"  {found.outcome} {found.reason}".rstrip(), file=sys.stderr, flush=True)
        if name == "probe" and found.outcome != HELD:
            raise NoDevice
        record.step(name, found, time.monotonic() - start, step.limit)
    outcomes = {record.outcome(name) for name in STEPS}
    if FAILED in outcomes:
        return STEP_FAILED
    if NOT_HELD in outcomes:
        return UNMET
    return ALL_HELD if outcomes == {HELD} else NOT_COMPLETE


if __name__ == "__main__":
    sys.exit(main())
