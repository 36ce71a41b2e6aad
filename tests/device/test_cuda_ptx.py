"""Every kernel, as compiled, on the device that runs PTX: the same bits, and no race.

`make test` runs each kernel once; the thorough tests run those of test_cuda_kernels.py again, and
plant faults, to see that they are found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import cuda_sources
import every_kernel as calls
import numpy as np
import pytest
from emulated.build import needs_compiler
from emulated.device import EmulatedDevice, EmulationError
from nvrtc import needs_nvrtc
from ptx.compiler import program
from ptx.device import PtxDevice

from pdex_gpu.backends.cuda import sources

pytestmark = [needs_compiler, needs_nvrtc]


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 32), ("float64", 64)])
def test_every_kernel(dtype: str, bits: int) -> None:
    """What NVIDIA's compiler and that of the host make of the sources computes the same."""
    device = PtxDevice(races=True, seed=bits)
    found = calls.outputs(device, dtype)
    for name, expected in calls.outputs(EmulatedDevice(), dtype).items():
        np.testing.assert_array_equal(found[name], expected, name, strict=True)
    read = map(cuda_sources.read, sources.names())
    wanted = {kernel for source in read for kernel in program(source).names}
    assert {name for name in wanted if not name.endswith(f"_{96 - bits}")} <= set(device.launches)


# --- planted faults ------------------------------------------------------------------------------

BARRIER = re.compile(r"__sync(threads|warp)\(\);")
#: A race, or what follows from one: garbage in shared memory that nobody has written yet.
RACE = r"(reads|writes|updates) what .* (read|wrote|updated) at|are in no array"

#: The calls that reach the barriers of a file.
REACHED_BY: dict[str, tuple[Callable[..., calls.Outputs], ...]] = {
    "anderson_darling.cu": (calls.of_anderson_darling,),
    "anderson_darling_pool.cu": (calls.of_anderson_darling_in_pools,),
    "benjamini_hochberg.cu": (calls.of_fdr,),
    "contrast.cuh": (calls.of_rank_sums,),
    "offsets.cu": (calls.of_layouts,),
    "pool.cu": (calls.of_gathered_pools,),
    "prefix_sums.cuh": (calls.of_anderson_darling_in_pools,),
    "rank_sums.cu": (calls.of_rank_sums,),
    "sort.cu": (calls.of_layouts,),
}


def barriers() -> list[tuple[str, int]]:
    """Every barrier: file and line, from 1."""
    return [
        (path.name, number)
        for path in sorted(sources.folder().glob("*.cu*"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if BARRIER.search(line)
    ]


def planted(folder: Path, file: str, old: str, new: str) -> PtxDevice:
    """A device whose sources have a fault."""
    copytree(sources.folder(), folder)
    text = (folder / file).read_text()
    assert text.count(old) == 1, f"{file} has {text.count(old)} of {old!r}"
    (folder / file).write_text(text.replace(old, new))
    return PtxDevice(folder=folder, races=True, seed=1, most_instructions=1 << 24)


def test_every_barrier_is_tried() -> None:
    assert {file for file, _ in barriers()} == set(REACHED_BY)
    assert len(barriers()) >= 20


@pytest.mark.thorough
@pytest.mark.parametrize(("file", "number"), barriers())
def test_no_barrier_can_be_left_out(tmp_path: Path, file: str, number: int) -> None:
    lines = (sources.folder() / file).read_text().splitlines(keepends=True)
    before, line = "".join(lines[: number - 1]), lines[number - 1]
    device = planted(tmp_path / "kernels", file, before + line, before + BARRIER.sub(";", line))
    with pytest.raises(EmulationError, match=RACE):
        calls.outputs(device, "float32", *REACHED_BY[file])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        pytest.param(
            "sort.cu", "x[r] = i < n ? from[i]", "x[r] = i <= n ? from[i]",
            r"kernel sort_\w+_32, .* sort\.cu:\d+: (4 bytes at .* are in no array|\w+ what)",
            id="one key too many",
        ),
        pytest.param(
            "layout.cu", "atomicAdd(&counts[group * n_genes + gene], 1u)",
            "counts[group * n_genes + gene] += 1u",
            r"kernel count_rows_32, .* layout\.cu:\d+: \w+ what .* (read|wrote)",
            id="a count without an atomic",
        ),
        pytest.param(
            "rank_sums.cu", "const u32 runs = __ballot_sync(FULL, starts_run);",
            "u32 runs = 0; if (here) runs = __ballot_sync(FULL, starts_run);",
            r"kernel rank_sums_32, .* rank_sums\.cu:\d+: lanes 0x\w+ wait for others of their mask",
            id="a ballot of lanes that diverged",
        ),
        pytest.param(
            "pool.cu", "at = __shfl_sync(FULL, at, 0);", "",
            r"kernel gather_pool_32, .* pool\.cu:\d+: writes what .* wrote at pool\.cu",
            id="room that one lane knows of",
        ),
    ],
)  # fmt: skip
def test_faults_are_found(tmp_path: Path, file: str, old: str, new: str, told: str) -> None:
    device = planted(tmp_path / "kernels", file, old, new)
    with pytest.raises(EmulationError, match=told):
        calls.outputs(device, "float32", *REACHED_BY.get(file, (calls.of_layouts,)))
