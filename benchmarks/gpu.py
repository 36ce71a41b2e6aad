"""pdex_gpu on a CUDA device: checked, then timed, against the targets it has there.

    python benchmarks/gpu.py            a screen of 300,000 cells x 8,000 genes
    python benchmarks/gpu.py --quick    a small screen, to see that everything runs

Runs with numpy, scipy, h5py and CuPy alone. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for _folder in (HERE, HERE.parent):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import gpu_meter  # noqa: E402
import gpu_times  # noqa: E402
from gpu_check import CheckFailed  # noqa: E402
from gpu_record import RESULTS, GpuRecord, RecordError  # noqa: E402
from gpu_screen import FULL, QUICK, Sizes, simulate  # noqa: E402

import pdex_gpu  # noqa: E402
from pdex_gpu.backends.cuda import probe  # noqa: E402
from pdex_gpu.utils.parallel import pool_map  # noqa: E402
from pdex_gpu.utils.resources import cpu_count  # noqa: E402

FAILED, WRONG_OPTIONS, UNMET, NO_DEVICE, WRONG_RESULTS = 1, 2, 3, 4, 5
SMALL_MEMORY = "8GiB"
_PACKAGES = ("numpy", "scipy", "h5py", "numba", "pandas", "anndata")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a small screen and few repeats; nothing is judged")
    add("--cells", type=int, help="size of the screen, instead of the one the targets are for")
    add("--genes", type=int)
    add("--perturbations", type=int)
    add("--seed", type=int, default=FULL.seed)
    add("--device", type=int, help="which CUDA device; by default the first that can be used")
    add("--small-memory", default=SMALL_MEMORY, help="device memory of the run that has little")
    add("--rounds", type=int, help="repeats (default 5; 2 with --quick)")
    add("--slow-rounds", type=int, help="repeats of what is slow (default 3; 1 with --quick)")
    add("--budget", type=float, metavar="SECONDS",
        help="measure nothing more after so long; the most important comes first")  # fmt: skip
    add("--only", nargs="+", choices=gpu_times.STAGES, metavar="STAGE",
        help=f"of {', '.join(gpu_times.STAGES)}")  # fmt: skip
    add("--cpu", action="store_true", help="also this package's CPU backend (needs numba)")
    add("--rapids", type=Path, metavar="FOLDER",
        help="also rapids-singlecell, from its unpacked wheel; see rapids.py")  # fmt: skip
    add("--devices", action="store_true", help="also all devices, where there are several")
    add("--h5ad", action="store_true", help="also a file")
    add("--commit", help="the commit, where there is no git to ask")
    add("--record", type=Path, help="the JSON (default benchmarks/results/gpu-DATE.json)")
    add("--check", action="store_true", help=f"exit code {UNMET} if a target is not met")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    clock = gpu_times.Clock(options.budget)
    base = QUICK if options.quick else FULL
    sizes = Sizes(
        options.cells or base.cells,
        options.genes or base.genes,
        options.perturbations or base.perturbations,
        options.seed,
    )
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.slow_rounds = options.slow_rounds or (1 if options.quick else 3)
    path = options.record or RESULTS / (
        f"gpu-{date.today().isoformat()}{'-quick' if options.quick else ''}.json"
    )
    if problem := sizes.problem():
        print(problem, file=sys.stderr)
        return WRONG_OPTIONS
    found = probe.probe(options.device)
    if not found.usable:
        print(f"no CUDA device can be used here: {found.reason}", file=sys.stderr)
        return NO_DEVICE
    options.device = probe.usable_device(options.device)
    meter = gpu_meter.open_meter(options.device)
    record = GpuRecord(
        {**asdict(sizes), "rounds": options.rounds, "slow_rounds": options.slow_rounds,
         "small_memory": options.small_memory, "budget": options.budget},
        meter.facts() | {"probe": found.reason},
        emulated=meter.emulated or _is_emulated(),
        full_size=sizes == FULL and options.small_memory == SMALL_MEMORY,
        commit_text=options.commit,
    )  # fmt: skip
    record.content["versions"] = _versions()
    try:
        record.check_place(path)
    except RecordError as error:
        print(error, file=sys.stderr)
        return WRONG_OPTIONS

    print(f"simulating {sizes}", file=sys.stderr, flush=True)
    screen = simulate(sizes)
    record.content["screen"] = {
        **asdict(sizes),
        "nnz": screen.nnz,
        "density": screen.nnz / (sizes.cells * sizes.genes),
        "csr_bytes": screen.csr_bytes,
        "seconds_to_simulate": clock.elapsed,
    }
    with ThreadPoolExecutor(cpu_count()) as pool:
        bench = gpu_times.Bench(options, screen, meter, record, clock, pool_map(pool))
        try:
            gpu_times.check(bench)
            gpu_times.run_stages(bench, lambda: record.write(path))
        except CheckFailed as error:
            path.unlink(missing_ok=True)  # times of wrong results are none
            print(f"the device computes wrong results:\n{error}", file=sys.stderr)
            return WRONG_RESULTS
    record.finish()
    record.content["seconds"] = clock.elapsed
    record.write(path)
    print(record.table())
    print(f"\n{clock.elapsed:.0f} seconds; recorded in {path}", file=sys.stderr)
    if record.content["errors"]:
        return FAILED
    return UNMET if options.check and record.unmet else 0


def _is_emulated() -> bool:
    """Return whether calls will use a device other than the one that CuPy drives."""
    return not hasattr(importlib.import_module("pdex_gpu.backends.cuda.cupy_device"), "CupyDevice")


def _versions() -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "pdex_gpu": pdex_gpu.__version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


if __name__ == "__main__":
    sys.exit(main())
