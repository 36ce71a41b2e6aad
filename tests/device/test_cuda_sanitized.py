"""The CUDA kernels under the address and the undefined-behaviour sanitizer.

Tests of other files run again, in a process of their own, on an emulated device whose libraries
are built with sanitizers: a report ends that process. That it would, the process shows last of
all, with a kernel that writes behind an array.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from emulated import build
from repository import ROOT, SUPPORT, TESTS

from pdex_gpu.backends.cuda import sources

_CHILD = """
import json, sys
import pytest

code = pytest.main(sys.argv[2:])

sys.path.insert(0, sys.argv[1])
from emulated import build, device
from emulated.overruns import launch

guarded = {
    name: b"__asan_report_store" in build.library(name, text).read_bytes()
    for name, text in device._libraries
}
print("child: " + json.dumps({"exit": int(code), "guarded": guarded}), flush=True)
toys = device.EmulatedDevice(folder=sys.argv[1] + "/emulated/toys")
launch(toys, "write_global", 63)
print("child: still here", flush=True)
launch(toys, "write_global", 64)
print("child: nobody saw it", flush=True)
"""

# Tests that take long are left out: they do what others do, with more of it.
_CONFORMANCE = (
    "emulated and not beyond_int64 and not more_groups and not test_many and not parts_in_any"
    " and not bits_of_the_cpu"
)

SELECTIONS = {
    "conformance": (
        ["contract/test_kernel_sets.py", "contract/test_benjamini_hochberg.py"],
        f"{_CONFORMANCE} and not small",
        120,
    ),
    "conformance, small tiles": (
        ["contract/test_kernel_sets.py", "contract/test_benjamini_hochberg.py"],
        f"{_CONFORMANCE} and (small or test_benjamini_hochberg)",
        120,
    ),
    "kernels and engine": (
        ["device/test_cuda_kernels.py", "device/test_cuda_calls.py"],
        "(test_cuda_kernels and not millions and not beyond_64 and not many_groups"
        " and not more_targets and not 100_000 and not large_contrast)"
        " or (test_shapes and small) or (storage_in_a_file and path-CSR)"
        " or (storage_in_memory and log and (strided or CSR-not)) or unsorted_indices"
        " or (in_place and CSC-log) or (slices_are_halved and t-test-1)",
        140,
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "selection",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "conformance" else ())
        for name in SELECTIONS
    ],
)
def test_no_kernel_gives_the_sanitizers_anything_to_report(selection: str) -> None:
    variables = build.sanitizer_environment()
    if variables is None:
        pytest.skip("no C++ compiler with address and undefined-behaviour sanitizers")
    files, which, fewest = SELECTIONS[selection]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= variables | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(SUPPORT), "-q", "-p", "no:xdist", "-p",
         "no:cacheprovider", "--tb=short", "-k", which, *(str(TESTS / name) for name in files)],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    told = [line.removeprefix("child: ") for line in done.stdout.splitlines() if "child: " in line]
    assert len(told) == 2, said  # the second launch of the toy ends the process
    assert told[1] == "still here"
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr, said
    assert done.returncode < 0, said
    assert done.stderr.count("ERROR: AddressSanitizer") == 1, said
    assert "runtime error" not in done.stderr, said

    facts = json.loads(told[0])
    assert facts["exit"] == 0, said
    (passed,) = re.findall(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert int(passed) >= fewest, said
    assert not re.search(r"\d+ (skipped|failed|error)", done.stdout), said
    needed = {"layout", "offsets", "sort", "moments", "rank_sums", "anderson_darling"}
    if selection == "kernels and engine":
        needed |= {"pool", "kolmogorov_smirnov", "placements"}
        needed |= {"anderson_darling_pool", "anderson_darling_continuous"}
    assert needed <= set(sources.names())
    assert needed <= set(facts["guarded"])  # next to kernels that tests bring with them
    assert "benjamini_hochberg" in facts["guarded"]
    assert all(facts["guarded"].values()), facts
