"""The device that runs compiled PTX: what it computes, counts, and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cuda_sources
import numpy as np
import pytest
from emulated.build import needs_compiler
from emulated.device import EmulationError, from_device, on_device
from nvrtc import needs_nvrtc
from ptx.counts import COUNTS
from ptx.device import PtxDevice
from ptx.text import PtxError
from repository import SUPPORT

from pdex_gpu.backends.cuda import sources

pytestmark = [needs_compiler, needs_nvrtc]

TOYS = SUPPORT / "ptx" / "toys"


def opened(**options: Any) -> PtxDevice:
    return PtxDevice(folder=TOYS, memory=1 << 24, **options)


@pytest.fixture
def device() -> PtxDevice:
    return opened(races=True)


def run(
    device: PtxDevice, kernel: str, n_blocks: int, n_threads: int, *args: Any, source: str
) -> list[np.ndarray]:
    """Launch with copies of host arrays; returns them afterwards."""
    given = [on_device(device, arg) if isinstance(arg, np.ndarray) else arg for arg in args]
    stream = device.stream()
    stream.launch(source, kernel, n_blocks, n_threads, *given)
    stream.synchronize()
    return [
        from_device(a) for a, arg in zip(given, args, strict=True) if isinstance(arg, np.ndarray)
    ]


def zeros(n: int, dtype: type = np.uint32) -> np.ndarray:
    return np.zeros(n, dtype)


# --- arithmetic ----------------------------------------------------------------------------------


def signed(value: int, bits: int) -> int:
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def quotient(x: int, y: int) -> tuple[int, int]:
    """Quotient and remainder, rounded to zero; nothing of a division by nothing."""
    if y == 0:
        return 0, 0
    q = abs(x) // abs(y) * (-1 if (x < 0) != (y < 0) else 1)
    return q, x - q * y


def of_integers(x: int, y: int) -> list[int]:
    ux, uy = x % 2**32, y % 2**32
    q, r = quotient(x, y)
    n = min(uy, 32)  # of places: shifts clamp
    field = ux >> 5 & 511
    return [
        signed(q, 32), r, ux // uy if uy else 0, x * y >> 32, ux * uy >> 32,
        x * y, signed(ux * uy, 64), min(x, y), max(ux, uy), 32 - ux.bit_length(), ux.bit_count(),
        signed(abs(x), 32), (ux << n) % 2**32, ux >> n, x >> n, field, signed(field, 9),
        uy & ~(127 << 4) | (ux & 127) << 4, x < y, ux <= uy, signed(x, 16), x % 256,
    ]  # fmt: skip


def of_wide(x: int, y: int) -> list[int]:
    ux, uy = x % 2**64, y % 2**64
    q, r = quotient(x, y)
    return [
        signed(q, 64), r, signed(x * y, 64), x * y >> 64, signed(ux * uy >> 64, 64),
        64 - ux.bit_length(), ux.bit_count(), min(x, y), signed(max(ux, uy), 64), x >> 7, ux >> 7,
        signed(x, 32),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "bits", "expected"), [("integers", 32, of_integers), ("wide", 64, of_wide)]
)
def test_integers(device: PtxDevice, kernel: str, bits: int, expected: Any) -> None:
    rng, low = np.random.default_rng(0), -(1 << bits - 1)
    some = [low, -1, 0, 1, 5, 31, 32, 33, ~low]
    pairs = [(x, y) for x in some for y in some if (x, y) != (low, -1)]
    pairs += [(int(x) >> rng.integers(bits), int(y) >> rng.integers(bits))
              for x, y in rng.integers(low, ~low, (80, 2), np.int64, endpoint=True)]  # fmt: skip
    a, b = np.array(pairs, f"i{bits // 8}").T.copy()
    n = len(pairs) // 32 * 32
    wanted = np.array([expected(int(x), int(y)) for x, y in pairs[:n]], np.int64).T
    out = zeros(wanted.size, np.int64)
    *_, found = run(device, kernel, 1, n, a[:n], b[:n], out, source="arithmetic")
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)


SOME = [0.0, -0.0, 1.0, -1.5, 2.5, -0.3, 1e-310, 7e9, -7e9, 1e19, 1e300, -1e300]
SPECIAL = [*SOME, np.inf, -np.inf, np.nan]


def test_floats(device: PtxDevice) -> None:
    a, b = np.array([(x, y) for x in SPECIAL for y in SPECIAL][:224]).T.copy()
    a, b = (np.concatenate([x, np.random.default_rng(1).normal(size=32)]) for x in (a, b))
    with np.errstate(all="ignore"):
        rounded = [np.floor(a), np.ceil(a), np.trunc(a), np.rint(a), np.abs(a)]
        wanted = np.array([
            a + b, a * b, a / b, None, np.sqrt(a), np.fmin(a, b), np.fmax(a, b), *rounded,
            a.astype(np.float32), 1 / b, a < b, a != b, ~(a >= b), np.isnan(a),
        ], object)  # fmt: skip
    out = zeros(wanted.shape[0] * a.size, np.float64)
    *_, found = run(device, "floats", 1, a.size, a, b, out, source="arithmetic")
    for k, row in enumerate(found.reshape(-1, a.size)):
        if wanted[k] is not None:
            np.testing.assert_array_equal(row, np.asarray(wanted[k], float), str(k))
    # A fused sum keeps what the product alone would lose.
    near = 1.0 + 2.0**-30
    given = np.full(32, near), np.full(32, -near)
    *_, found = run(
        device, "floats", 1, 32, *given, zeros(18 * 32, np.float64), source="arithmetic"
    )
    assert (found.reshape(18, 32)[3] == -(2.0**-30) - 2.0**-60).all()


def test_conversions_saturate(device: PtxDevice) -> None:
    a = np.resize(np.array([*SOME, np.inf, -np.inf]), 32)
    _, found = run(device, "conversions", 1, 32, a, zeros(7 * 32, np.int64), source="arithmetic")

    def into(values: np.ndarray, low: int, high: int) -> list[int]:
        return [high if x >= high else low if x <= low else int(x) for x in values.tolist()]

    int32, int64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
    wanted = [
        into(np.trunc(a), *int32),
        into(np.trunc(a), 0, 2**32 - 1),
        into(np.trunc(a), *int64),
        [signed(x, 64) for x in into(np.trunc(a), 0, 2**64 - 1)],
        into(np.rint(a), *int32),
        into(np.floor(a), *int32),
        into(np.ceil(a), *int32),
    ]
    np.testing.assert_array_equal(found.reshape(7, 32), np.array(wanted, np.int64))


# --- counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "n_sectors"), [(0, 1), (1, 4), (2, 8), (8, 32), (9, 32)])
def test_sectors(device: PtxDevice, step: int, n_sectors: int) -> None:
    given = np.arange(64 * max(1, step), dtype=np.uint32)
    _, found = run(device, "strided", 1, 64, given, zeros(64), np.int32(step), source="memory")
    np.testing.assert_array_equal(found, given[np.arange(64) * step])
    counted = device.counted["strided"]
    assert (counted.launches, counted.blocks, counted.warps) == (1, 1, 2)
    assert counted.of("sectors", "load.global") == 2 * n_sectors
    assert counted.of("least", "load.global") == 2 * (4 if step else 1)
    assert counted.of("misses", "load.global") == (2 * n_sectors if step else 1)
    assert counted.of("sectors", "store.global") == counted.of("least", "store.global") == 8
    assert counted.read == (2 * n_sectors if step else 1)
    assert counted.written == 8


@pytest.mark.parametrize(("step", "wavefronts"), [(0, 1), (1, 1), (2, 2), (3, 1), (8, 8), (31, 1)])
def test_banks_of_32_bits(device: PtxDevice, step: int, wavefronts: int) -> None:
    (found,) = run(device, "banks_32", 1, 32, zeros(32), np.int32(step), source="memory")
    np.testing.assert_array_equal(found, np.arange(32) * step)
    counted = device.counted["banks_32"]
    assert counted.of("wavefronts", "load.shared") == wavefronts
    assert counted.of("least", "load.shared") == 1


@pytest.mark.parametrize(("step", "wavefronts"), [(0, 2), (1, 2), (2, 4), (16, 32)])
def test_banks_of_64_bits(device: PtxDevice, step: int, wavefronts: int) -> None:
    given = zeros(32, np.uint64)
    (found,) = run(device, "banks_64", 1, 32, given, np.int32(step), source="memory")
    np.testing.assert_array_equal(found, np.arange(32) * step)
    counted = device.counted["banks_64"]
    assert counted.of("wavefronts", "load.shared") == wavefronts
    assert counted.of("least", "load.shared") == 2


@pytest.mark.parametrize(("n_places", "collisions"), [(1, 32), (2, 16), (32, 1)])
def test_collisions_of_atomics(device: PtxDevice, n_places: int, collisions: int) -> None:
    place = (np.arange(32) % n_places).astype(np.uint32)
    _, found = run(device, "counts", 1, 32, place, zeros(32), source="memory")
    np.testing.assert_array_equal(found, np.bincount(place, minlength=32))
    assert device.counted["counts"].of("collisions", "atomic.global") == collisions


@pytest.mark.parametrize(("l1_bytes", "misses"), [(0, 8), (16 << 10, 4)])
def test_what_is_read_again_is_in_l1(l1_bytes: int, misses: int) -> None:
    device = opened(l1_bytes=l1_bytes)
    run(device, "read_twice", 1, 32, np.ones(32, np.uint32), zeros(32), source="memory")
    counted = device.counted["read_twice"]
    assert counted.of("sectors", "load.global") == 8
    assert counted.of("misses", "load.global") == misses
    assert counted.read == 4


def test_lanes_that_loop_longer() -> None:
    """A warp issues what its longest lane needs, and all lanes meet again."""
    issues = {}
    for name, n in {"even": np.full(32, 16), "skewed": np.r_[np.zeros(31, int), 16]}.items():
        device = opened()
        run(device, "loops", 1, 32, n.astype(np.uint32), zeros(16), zeros(32), source="threads")
        counted = device.counted["loops"]
        issues[name] = counted.of("issues")
        assert counted.longest_warp == counted.longest_block == issues[name]
        (stored,) = counted.counts[counted.kernel.kinds == "store.global"]
        assert (stored[COUNTS.index("issues")], stored[COUNTS.index("lanes")]) == (1, 32)
        assert (counted.of("splits") > 0) == (name == "skewed")
    assert issues["even"] <= issues["skewed"] <= issues["even"] + 8


def test_the_hottest_lines(device: PtxDevice) -> None:
    n = np.full(32, 99, np.uint32)
    run(device, "loops", 1, 32, n, zeros(99), zeros(32), source="threads")
    line, counts = next(device.counted["loops"].hottest("issues"))
    assert line.file == "threads.cu"
    assert line.text.strip().startswith("for (u32 k = 0")
    assert counts["issues"] > 0.9 * device.counted["loops"].of("issues")


# --- what is refused -----------------------------------------------------------------------------


def test_accesses_outside_of_arrays(device: PtxDevice) -> None:
    told = r"kernel strided, block 0, thread 32, memory\.cu:8: 4 bytes at 0x\w+ are in no array"
    with pytest.raises(EmulationError, match=told):
        run(device, "strided", 1, 64, zeros(64), zeros(32), np.int32(1), source="memory")
    told = r"thread 60, memory\.cu:42: 4 bytes at 0x100 are beyond the 256 of shared memory"
    with pytest.raises(EmulationError, match=told):
        run(device, "beyond_shared", 1, 64, zeros(64), np.int32(4), source="memory")


def test_unaligned_accesses(device: PtxDevice) -> None:
    given = np.zeros(300, np.uint8)
    with pytest.raises(EmulationError, match=r"thread 0, memory\.cu:37: 8 bytes at .* not aligned"):
        run(device, "unaligned", 1, 32, given, zeros(32, np.uint64), source="memory")


def test_threads_that_wait_for_ever(device: PtxDevice) -> None:
    with pytest.raises(EmulationError, match="lanes 0x7f wait for others of their mask"):
        run(device, "votes_of_some", 1, 32, np.ones(32, np.uint32), source="threads")
    given = np.repeat(np.array([0, 1], np.uint32), 32)
    run(device, "barriers_of_some", 1, 32, given[:32], source="threads")
    with pytest.raises(EmulationError, match=r"threads\.cu:\d+: waits for the block, which waits"):
        run(device, "barriers_of_some", 1, 64, given, source="threads")
    impatient = opened(most_instructions=10_000)
    with pytest.raises(EmulationError, match="still runs after 10000 instructions"):
        run(impatient, "waits_for_a_block", 2, 32, zeros(1), source="threads")


def test_arguments_of_other_sizes(device: PtxDevice) -> None:
    with pytest.raises(
        EmulationError, match=r"takes arguments of \[8, 8, 4\] bytes, not \[8, 8, 8"
    ):
        run(device, "strided", 1, 32, zeros(2), zeros(2), np.int64(1), source="memory")


@pytest.mark.parametrize(
    ("kernel", "told"),
    [
        ("highest_bit", r"strange\.cu:7: .* `bfind\.u32 .*`: the device has no bfind\.u32"),
        ("any_vote", r"strange\.cu:12: .* `vote\.sync\.any\.pred.*`: of votes, .* has ballots"),
    ],
)
def test_instructions_that_are_not_known(device: PtxDevice, kernel: str, told: str) -> None:
    (found,) = run(device, "knows", 1, 32, zeros(32), source="strange")
    np.testing.assert_array_equal(found, np.arange(32))
    with pytest.raises(PtxError, match=rf"kernel {kernel}, {told}"):
        run(device, kernel, 1, 32, zeros(32), source="strange")


def test_kernels_that_there_are_not(device: PtxDevice) -> None:
    with pytest.raises(EmulationError, match=r"strange\.cu has no kernel gone, only \['knows'"):
        run(device, "gone", 1, 32, source="strange")


def test_kernels_of_one_name_in_two_sources(tmp_path: Path) -> None:
    for source in ("one", "two"):
        text = 'extern "C" __global__ void same(unsigned* to) { to[threadIdx.x] = 1; }'
        (tmp_path / f"{source}.cu").write_text(text, "utf-8")
    device = PtxDevice(folder=tmp_path, memory=1 << 24)
    run(device, "same", 1, 32, zeros(32), source="one")
    with pytest.raises(EmulationError, match=r"same is in one\.cu and in two\.cu: .* rename one"):
        run(device, "same", 1, 32, zeros(32), source="two")


# --- races ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("kernel", "n_blocks", "n_threads", "told"),
    [
        ("between_warps", 1, 64, r"threads\.cu:41: reads what thread \d+ wrote at threads\.cu:39"),
        ("between_lanes", 1, 32, r"threads\.cu:48: reads what thread \d+ wrote at threads\.cu:46"),
        (
            "between_rounds",
            1,
            64,
            r"thread 0, threads\.cu:54: writes what .* read at threads\.cu:56",
        ),
        ("between_blocks", 3, 32, r"block \d, thread 0, .*: writes what another block wrote at"),
        ("between_atomics", 1, 64, r": (reads|updates) what .* (updated|read) at"),
        ("between_updates", 1, 32, r": writes what .* read at"),
    ],
)
def test_races(kernel: str, n_blocks: int, n_threads: int, told: str, seed: int) -> None:
    def launch(wait: int, *, races: bool) -> None:
        device = opened(races=races, seed=seed)
        run(device, kernel, n_blocks, n_threads, zeros(64), np.int32(wait), source="threads")

    launch(1, races=True)
    launch(0, races=False)
    with pytest.raises(EmulationError, match=told):
        launch(0, races=True)


# --- sources -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sources.names())
def test_text_of_sources(name: str) -> None:
    """Lines are told of the text that devices compile."""
    source = cuda_sources.read(name)
    assert source.text == sources.text(name)
    for line in source.lines[:: max(1, len(source.lines) // 9)]:
        told = (sources.folder() / line.file).read_text().splitlines()
        assert told[line.number - 1] == line.text
