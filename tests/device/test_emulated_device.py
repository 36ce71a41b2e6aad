"""The emulated device: right kernels give right results, and every kind of fault is found."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from emulated import build
from emulated.device import (
    EmulatedDevice,
    EmulatedEvent,
    EmulationError,
    from_device,
    on_device,
)
from repository import SUPPORT

from pdex_gpu.errors import DeviceLostError, DeviceMemoryError

pytestmark = build.needs_compiler

TOYS = SUPPORT / "emulated" / "toys"
SEEDS = range(6)


def opened(**options) -> EmulatedDevice:
    return EmulatedDevice(folder=TOYS, memory=1 << 24, **options)


@pytest.fixture
def device() -> EmulatedDevice:
    return opened()


@pytest.fixture(params=SEEDS)
def any_order(request) -> EmulatedDevice:
    """A device that runs threads and blocks in another order for each seed."""
    return opened(seed=request.param)


def run(device, kernel, n_blocks, n_threads, *args, shared=0, source="right") -> None:
    stream = device.stream()
    stream.launch(source, kernel, n_blocks, n_threads, *args, shared=shared)
    stream.synchronize()


def new(device, size, dtype):
    """An array that a kernel is to fill; it holds garbage."""
    return device.stream().empty(size, dtype)


# --- right kernels ------------------------------------------------------------------------------


def test_add(any_order):
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 1000), dtype=np.float32)
    stream = any_order.stream()
    on_a, on_b, on_c = (stream.empty(1000, np.float32) for _ in range(3))
    stream.upload(a, on_a)
    stream.upload(b, on_b)
    stream.launch("right", "add", 3, 64, on_a, on_b, on_c, np.int32(1000))
    c = np.empty(1000, np.float32)
    stream.download(on_c, c)
    stream.synchronize()
    np.testing.assert_array_equal(c, a + b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("negate", [False, True])
def test_every_kind_of_argument(device, dtype, negate):
    a = np.arange(100, dtype=dtype)
    out = new(device, 100, dtype)
    name = {np.float32: "scaled_float", np.float64: "scaled_double"}[dtype]
    rest = (dtype(-1.5), np.bool_(negate), np.int64(100), np.uint8(200))
    run(device, name, 1, 128, on_device(device, a), out, None, *rest)
    expected = a * dtype(-1.5) + 1 + 200
    np.testing.assert_array_equal(from_device(out), -expected if negate else expected)


def test_block_reduction_with_1024_threads(any_order):
    values = np.random.default_rng(1).integers(-1000, 1000, (5, 1024)).astype(np.int32)
    sums, means = new(any_order, 5, np.int64), new(any_order, 5, np.float64)
    run(any_order, "block_sums", 5, 1024, on_device(any_order, values.ravel()), sums, means)
    np.testing.assert_array_equal(from_device(sums), values.sum(axis=1))
    np.testing.assert_array_equal(from_device(means), values.mean(axis=1))


@pytest.mark.parametrize("n_threads", [32, 256, 1024])
def test_bitonic_sort_in_dynamic_shared_memory(any_order, n_threads):
    keys = np.random.default_rng(2).integers(0, 2**32, n_threads - 5, dtype=np.uint32)
    on_keys = on_device(any_order, keys)
    run(any_order, "bitonic_sort", 1, n_threads, on_keys, np.int32(keys.size), shared=4 * n_threads)
    np.testing.assert_array_equal(from_device(on_keys), np.sort(keys))


def test_warp_reductions_of_64_bits(any_order):
    rng = np.random.default_rng(3)
    values = rng.integers(0, 2**40, (6, 32)).astype(np.float64)
    keys = rng.integers(0, 2**64, (6, 32), dtype=np.uint64)
    sums, most = new(any_order, 6, np.float64), new(any_order, 6, np.uint64)
    odd, odd_low = new(any_order, 6, np.uint32), new(any_order, 6, np.uint32)
    inputs = (on_device(any_order, x.ravel()) for x in (values, keys))
    run(any_order, "warp_sums", 2, 96, *inputs, sums, most, odd, odd_low)
    np.testing.assert_array_equal(from_device(sums), values.sum(axis=1))
    np.testing.assert_array_equal(from_device(most), keys.max(axis=1))
    bits = (keys & 1) << np.arange(32, dtype=np.uint64)
    np.testing.assert_array_equal(from_device(odd), bits.sum(axis=1))
    np.testing.assert_array_equal(from_device(odd_low), (keys[:, :16] & 1).sum(axis=1))


def test_warp_primitives(any_order):
    v = np.random.default_rng(4).integers(0, 1000, 32).astype(np.int32)
    lane = np.arange(32)
    first = lane // 8 * 8
    bits = 1 << lane
    expected = [
        v[np.full(32, 5)],
        v[first + 3],
        np.where(lane >= 3, v[lane - 3], v),
        np.where(lane - first >= 3, v[lane - 3], v),
        np.where(lane + 3 < 32, v[(lane + 3) % 32], v),
        np.where(lane - first + 3 < 8, v[(lane + 3) % 32], v),
        v[lane ^ 9],
        np.where((lane ^ 9) < first + 8, v[lane ^ 9], v),  # earlier segments can be read
        ((v[:, None] % 3 == v % 3) * bits).sum(axis=1).astype(np.uint32).view(np.int32),
        np.full(32, 1),
        np.full(32, int((v == v[7]).all())),
        v[lane ^ 2],
    ]
    out = new(any_order, 12 * 32, np.int32)
    run(any_order, "primitives", 1, 32, on_device(any_order, v), out)
    np.testing.assert_array_equal(from_device(out).reshape(12, 32), np.array(expected))


def test_barriers_that_vote(any_order):
    values = np.repeat(np.array([0, 1, 1], np.int32), 64)
    values[64] = 0
    outs = [new(any_order, 192, np.int32) for _ in range(3)]
    run(any_order, "barrier_votes", 3, 64, on_device(any_order, values), *outs)
    counts, some, every = (from_device(out).reshape(3, 64) for out in outs)
    assert [set(row) for row in counts] == [{0}, {63}, {64}]
    assert [set(row) for row in some] == [{0}, {1}, {1}]
    assert [set(row) for row in every] == [{0}, {0}, {1}]


def test_integer_atomics(any_order):
    bins = np.random.default_rng(5).integers(3, 64, 1000).astype(np.uint32)
    stream = any_order.stream()
    counts, most = stream.empty(64, np.int32), stream.empty(1, np.uint32)
    total, bits = stream.empty(1, np.uint64), stream.empty(1, np.uint32)
    for array in (counts, most, total, bits):
        stream.zero(array)
    least = on_device(any_order, np.array([100], np.int32))
    claimed = on_device(any_order, np.array([2**64 - 1], np.uint64))
    on_bins = on_device(any_order, bins)
    stream.launch(
        "right", "histogram", 4, 256,
        on_bins, counts, most, total, least, bits, claimed, np.int32(1000),
    )  # fmt: skip
    stream.synchronize()
    np.testing.assert_array_equal(from_device(counts), np.bincount(bins, minlength=64))
    assert from_device(most)[0] == bins.max()
    assert from_device(least)[0] == bins.min()
    assert from_device(total)[0] == bins.sum()
    assert from_device(bits)[0] == np.bitwise_or.reduce(np.uint32(1) << bins % 32)
    assert from_device(claimed)[0] == 7


def test_bits(device):
    values = np.random.default_rng(6).integers(1, 2**32, 32, dtype=np.uint32)
    values[:3] = 0, 1, 2**32 - 1
    out = new(device, 320, np.int32)
    run(device, "bit_tricks", 1, 32, on_device(device, values), out)
    expected = []
    for v in map(int, values):
        text = f"{v:032b}"
        ones, low = text.count("1"), (v & -v).bit_length()
        reversed_bits = np.uint32(int(text[::-1], 2)).view(np.int32)
        leading = 32 - v.bit_length()
        expected.append([ones, leading, low, reversed_bits, v & 0x3FFFFFFF, 2 * ones, leading + 32,
                         low + 8 if v else 0, 1, 6])  # fmt: skip
    np.testing.assert_array_equal(from_device(out).reshape(32, 10), np.array(expected))


def test_shared_memory_holds_garbage_and_blocks_take_turns(any_order):
    stream = any_order.stream()
    fixed, dynamic = stream.empty(20 * 32, np.uint32), stream.empty(20 * 32, np.uint32)
    turn, turns = stream.empty(1, np.uint32), stream.empty(20, np.uint32)
    stream.zero(turn)
    stream.launch("right", "unwritten", 20, 32, fixed, dynamic, turn, turns, shared=128)
    stream.synchronize()
    for array in (fixed, dynamic):
        found = from_device(array).reshape(20, 32)
        assert (found != 0).any(axis=1).all()
        assert len(np.unique(found, axis=0)) == 20
    assert (from_device(turns) != np.arange(20)).any()
    np.testing.assert_array_equal(np.sort(from_device(turns)), np.arange(20))


def test_the_same_seed_gives_the_same_order():
    def turns(seed: int) -> bytes:
        device = opened(seed=seed)
        turn, out = on_device(device, np.zeros(1, np.uint32)), new(device, 50, np.uint32)
        scratch = new(device, 50 * 32, np.uint32)
        run(device, "unwritten", 50, 32, scratch, scratch, turn, out, shared=128)
        return from_device(out).tobytes()

    assert turns(1) == turns(1)
    assert len({turns(seed) for seed in range(8)}) > 4


# --- faults of kernels --------------------------------------------------------------------------


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize(
    ("kernel", "source"), [("missing_barrier", np.arange(256)[::-1]), ("missing_syncwarp", None)]
)
def test_a_missing_barrier_gives_wrong_results(kernel, source):
    source = np.arange(256) ^ 31 if source is None else source
    values = np.arange(256, dtype=np.int32) + 7
    wrong = 0
    for seed in SEEDS:
        device = opened(seed=seed)
        out = new(device, 256, np.int32)
        run(device, kernel, 1, 256, on_device(device, values), out, source="wrong")
        wrong += bool((from_device(out) != values[source]).any())
    assert wrong >= len(SEEDS) // 2


@pytest.mark.parametrize(
    ("kernel", "n", "message"),
    [
        ("early_return", 5, r"\d+: divergent barrier: 5 threads \(0, 1, 2, 3, \.\.\.\) wait in "
         r"__syncthreads \(line \d+\); 59 threads .* ended"),
        ("two_barriers", 5, r"\d+: divergent barrier: waits in __syncthreads \(line \d+\) while "),
        ("barrier_meets_warp", 32, r"\d+: divergent barrier: 32 threads .* wait in __syncthreads "
         r".*; 32 threads .* ended"),
        ("barrier_meets_warp", 5, r"5: warp primitive that not all lanes of its mask reach: "
         r"5 threads .* wait in __syncthreads .*; 27 threads .* wait in __syncwarp "
         r"\(line \d+, mask 0xffffffff\)"),
        ("lanes_ended", 5, r"0: warp primitive that not all lanes of its mask reach: 5 threads "
         r".* wait in __syncwarp .*; 54 threads .* ended"),
        ("not_in_own_mask", 2, r"1: __syncwarp .* which does not name its own lane 1"),
        ("different_primitives", None, r"\d+: __a(ll|ny)_sync .* meets __a(ll|ny)_sync"),
        ("reads_outside_mask", None, r"7: __shfl_sync .* reads lane 8, which is not in its mask "
         r"0x000000ff"),
        ("trapped", 1, r"3: __trap was called"),
    ],
)  # fmt: skip
def test_misuse_of_barriers_and_masks(any_order, kernel, n, message):
    argument = new(any_order, 64, np.int32) if n is None else np.int32(n)
    with pytest.raises(EmulationError, match=rf"^kernel {kernel}, block [01], thread {message}"):
        run(any_order, kernel, 2, 64, argument, source="wrong")
    # the emulator itself goes on
    run(any_order, "early_return", 2, 64, np.int32(64), source="wrong")


@pytest.mark.parametrize("n", [0, 64])
@pytest.mark.parametrize("kernel", ["early_return", "two_barriers"])
def test_what_all_threads_do_is_no_divergence(any_order, kernel, n):
    run(any_order, kernel, 2, 64, np.int32(n), source="wrong")


def test_sums_of_floats_have_no_atomics():
    kernel = 'extern "C" __global__ void sum(float* x) { atomicAdd(x, 1.0f); }'
    with pytest.raises(build.CompileError, match="atomicAdd"):
        build.library("sum", kernel)


# --- launches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_blocks", "n_threads", "shared", "message"),
    [
        (0, 32, 0, "a grid of 0 blocks"),
        (2**31, 32, 0, "a grid of 2147483648 blocks"),
        (1, 0, 0, "a block of 0 threads"),
        (1, 33, 0, "a block of 33 threads"),
        (1, 1056, 0, "a block of 1056 threads; blocks have a multiple of 32 up to 1024"),
        (1, 32, 1001, "1,001 bytes of dynamic shared memory, the device has 1,000"),
    ],
)
def test_impossible_launches(n_blocks, n_threads, shared, message):
    device = opened(shared_memory=1000)
    with pytest.raises(EmulationError, match=f"kernel barriers.*{message}"):
        run(device, "barriers", n_blocks, n_threads, np.int32(1), shared=shared)


def test_launch_bounds(device):
    x = new(device, 4, np.float32)
    with pytest.raises(EmulationError, match="multiple of 32 up to 256"):
        run(device, "add", 1, 288, x, x, x, np.int32(0))


def test_wrong_arguments(device):
    x, n = new(device, 4, np.float32), np.int32(0)
    with pytest.raises(EmulationError, match=r"add takes 4 arguments \(a, b, c, n\), 3 were given"):
        run(device, "add", 1, 32, x, x, x)
    for wrong, spelled in [
        (np.int64(0), "int64"),
        (np.uint32(0), "uint32"),
        (np.float32(0), "float32"),
        (x, "a pointer to float32"),
        (None, "a null pointer"),
    ]:
        with pytest.raises(EmulationError, match=rf"argument 3 \(n\): .* int32, given {spelled}"):
            run(device, "add", 1, 32, x, x, x, wrong)
    for other in (np.float64, np.int32):
        with pytest.raises(EmulationError, match=r"argument 1 \(b\): .* a pointer to float32"):
            run(device, "add", 1, 32, x, new(device, 4, other), x, n)
    run(device, "add", 1, 32, x, new(device, 16, np.uint8), None, n)  # bytes hold anything
    for python in (0, 0.0, True, "x", np.zeros(3)):
        with pytest.raises(TypeError, match="argument 3: arguments are arrays on the device"):
            run(device, "add", 1, 32, x, x, x, python)


def test_unknown_kernel(device):
    with pytest.raises(EmulationError, match=r"right\.cu has no .* function subtract, only add"):
        run(device, "subtract", 1, 32)


def test_launches_are_counted(device):
    for times in range(3):
        run(device, "barriers", 1, 32, np.int32(times))
    device.stream().launch("right", "barriers", 1, 32, np.int32(0))  # never runs
    assert device.launches == {"barriers": 3}


# --- memory -------------------------------------------------------------------------------------


def test_memory_is_limited_and_given_back():
    device = EmulatedDevice(memory=2000)
    assert device.memory() == (2000, 2000)
    stream = device.stream()
    a = stream.empty(475, np.float32)
    part = a[10:20]
    message = r"asked for 1,234 bytes of device memory, 100 of 2,000 are free"
    with pytest.raises(DeviceMemoryError, match=message):
        stream.empty(1234, np.uint8)
    del a
    gc.collect()
    assert device.bytes_in_use == 1900  # the slice holds it
    del part
    gc.collect()
    assert (device.bytes_in_use, device.peak_bytes) == (0, 1900)
    assert device.memory() == (2000, 2000)


def test_a_queued_operation_keeps_its_arrays():
    device = EmulatedDevice(memory=2000)
    stream = device.stream()
    stream.zero(stream.empty(1000, np.uint8))
    gc.collect()
    assert device.bytes_in_use == 1000
    stream.synchronize()
    gc.collect()
    assert device.bytes_in_use == 0


def test_failing_allocations(device):
    stream = device.stream()
    device.fail_allocation(after=1, times=2)
    stream.empty(1, np.int8)
    for _ in range(2):
        with pytest.raises(DeviceMemoryError, match="asked for 1 bytes"):
            stream.empty(1, np.int8)
    stream.empty(1, np.int8)


def test_new_memory_holds_garbage(device):
    found = from_device(new(device, 101, np.uint8))
    assert len(np.unique(found)) > 2
    assert (from_device(new(device, 101, np.uint8)) != found).any()


def test_slices(device):
    x = on_device(device, np.arange(10, dtype=np.int16))
    part = x[2:8]
    assert (part.size, part.nbytes, part.dtype) == (6, 12, np.int16)
    np.testing.assert_array_equal(from_device(part[1:3]), [3, 4])
    np.testing.assert_array_equal(from_device(x[:]), np.arange(10))
    assert x[10:].size == 0
    for start, stop in ((0, 11), (-1, 5), (5, 4), (11, 11)):
        with pytest.raises(IndexError, match="leaves an array of 10 items"):
            x[start:stop]
    for wrong in (slice(0, 4, 2), slice(None, None, -1), 3):
        with pytest.raises(TypeError, match="slices with unit step"):
            x[wrong]


def test_the_host_cannot_read_the_device(device):
    x = new(device, 10, np.float64)
    for read in (np.asarray, list, np.sum):
        with pytest.raises(TypeError, match="cannot be read on the host"):
            read(x)


def test_arrays_of_others_are_used_in_place(device):
    values = np.arange(1000, dtype=np.float32)
    theirs = on_device(device, values)
    ours = device.adopt(theirs)
    run(device, "add", 1, 64, ours, ours, ours, np.int32(1000))
    np.testing.assert_array_equal(from_device(theirs), 2 * values)
    matrix = on_device(device, values.reshape(20, 50))
    assert matrix.__cuda_array_interface__["shape"] == (20, 50)
    assert matrix.__cuda_array_interface__["strides"] is None
    fortran = on_device(device, np.asfortranarray(values.reshape(20, 50)))
    assert fortran.__cuda_array_interface__["strides"] == (4, 80)
    for wrong in (values, matrix, 3):
        with pytest.raises(TypeError, match=r"CUDA device|one-dimensional"):
            device.adopt(wrong)


# --- streams ------------------------------------------------------------------------------------


def test_nothing_happens_before_the_host_waits(device):
    stream = device.stream()
    host, result = np.arange(100, dtype=np.float32), np.zeros(100, np.float32)
    x = stream.empty(100, np.float32)
    stream.upload(host, x)
    stream.launch("right", "add", 1, 128, x, x, x, np.int32(100))
    stream.download(x, result)
    assert set(result.view(np.uint8)) == {0xA5}
    assert device.uploaded_bytes == device.downloaded_bytes == 0
    host[50:] = -1  # too early
    stream.synchronize()
    np.testing.assert_array_equal(result[:50], 2 * np.arange(50))
    np.testing.assert_array_equal(result[50:], -2)
    assert device.uploaded_bytes == device.downloaded_bytes == 400


def test_events_order_streams(device):
    first, second = device.stream(), device.stream()
    x, y = first.empty(64, np.int32), second.empty(64, np.int32)
    first.upload(np.arange(64, dtype=np.int32), x)
    unordered = np.zeros(64, np.int32)
    second.download(x, unordered)
    second.synchronize()
    assert (unordered != np.arange(64)).any()

    event = first.record()
    first.zero(x)  # behind the event
    ordered = np.zeros(64, np.int32)
    second.wait(event)
    second.download(x, ordered)
    second.zero(y)
    second.synchronize()
    np.testing.assert_array_equal(ordered, np.arange(64))
    assert (from_device(y) == 0).all()
    assert (from_device(x) == np.arange(64)).all()
    first.synchronize()
    assert (from_device(x) == 0).all()


def test_events_that_cannot_happen(device):
    stream = device.stream()
    with pytest.raises(EmulationError, match="never recorded"):
        stream.wait(EmulatedEvent())
    with pytest.raises(EmulationError, match="another device"):
        stream.wait(opened().stream().record())
    with pytest.raises(TypeError, match="waits for events, not for a int"):
        stream.wait(3)


def test_copies_must_match(device):
    stream = device.stream()
    x = stream.empty(10, np.float32)
    for host in (np.zeros(9, np.float32), np.zeros(10), np.zeros(20, np.float32)[::2]):
        for copy in (stream.upload, lambda h, d: stream.download(d, h)):
            with pytest.raises(ValueError, match=r"copy between|contiguous"):
                copy(host, x)
    frozen = np.zeros(10, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="cannot be written"):
        stream.download(x, frozen)
    with pytest.raises(TypeError, match="not an array of the emulated device"):
        stream.upload(frozen, frozen)


def test_pinned_memory(device):
    host = device.pinned(64)
    assert (host.dtype, host.size) == (np.uint8, 64)
    floats = host.view(np.float32)
    stream = device.stream()
    x = stream.empty(16, np.float32)
    stream.zero(x)
    stream.download(x, floats)
    stream.synchronize()
    assert (floats == 0).all()


def test_a_stream_with_a_failure_stays_failed(device):
    first, second = device.stream(), device.stream()
    first.launch("wrong", "early_return", 1, 32, np.int32(1))
    second.wait(first.record())
    for stream in (second, first, first):
        with pytest.raises(EmulationError, match="early_return"):
            stream.synchronize()
    device.stream().synchronize()


def test_a_lost_device(device):
    stream = device.stream()
    x = stream.empty(4, np.int32)
    device.lose(after=2)
    for _ in range(3):
        stream.launch("right", "barriers", 1, 32, np.int32(1))
    with pytest.raises(DeviceLostError, match="emulated device 0 was lost"):
        stream.synchronize()
    assert device.launches == {"barriers": 1}
    for operation in (
        stream.synchronize,
        stream.record,
        device.stream,
        device.memory,
        lambda: stream.empty(1, np.int8),
        lambda: stream.zero(x),
        lambda: stream.launch("right", "barriers", 1, 32, np.int32(1)),
    ):
        with pytest.raises(DeviceLostError):
            operation()


def test_a_device_lost_at_once(device):
    stream = device.stream()
    device.lose()
    with pytest.raises(DeviceLostError):
        stream.empty(1, np.int8)


def test_threads_share_a_device():
    device = opened()

    def sort(seed: int) -> bool:
        stream, rng = device.stream(), np.random.default_rng(seed)
        right = True
        for _ in range(20):
            keys = rng.integers(0, 2**32, 256, dtype=np.uint32)
            x, out = stream.empty(256, np.uint32), np.zeros(256, np.uint32)
            stream.upload(keys, x)
            stream.launch("right", "bitonic_sort", 1, 256, x, np.int32(256), shared=1024)
            stream.download(x, out)
            stream.synchronize()
            right &= bool((out == np.sort(keys)).all())
        return right

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(sort, range(8)))
    gc.collect()
    assert device.launches["bitonic_sort"] == 160
    assert device.bytes_in_use == 0


# --- the build ----------------------------------------------------------------------------------


def test_kernels_are_found_after_the_preprocessor():
    source = """
        extern "C" __global__ void plain(const float* __restrict__ a, int n) {}
        extern "C" __global__ void __launch_bounds__(128, 4) bound(int (&x)[3], Pair<int, 2> p) {}
        extern "C" __launch_bounds__((32 * (2 + 2))) __global__ void first() {}
        extern "C" void not_a_kernel(int n) {}
        template <class T> __global__ void no_name(T* x) {}
    """
    assert build.kernels(source) == [
        ("plain", "0", ["a", "n"]),
        ("bound", "128", ["3", "p"]),
        ("first", "(32 * (2 + 2))", []),
    ]


@pytest.mark.thorough
def test_builds_are_kept_and_shared(tmp_path, monkeypatch):
    monkeypatch.setenv(build.FOLDER, str(tmp_path))
    source = 'extern "C" __global__ void nothing() { int unused; }'
    with ThreadPoolExecutor(3) as pool:
        places = set(pool.map(lambda _: build.library("nothing", source), range(3)))
    assert len(places) == 1
    place = places.pop()
    built = place.stat().st_mtime_ns
    assert build.library("nothing", source).stat().st_mtime_ns == built
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".lock"]
    assert "unused" in build.warnings(place)
    with pytest.raises(build.CompileError, match=r"broken\.cu:1.*undefined_name"):
        build.library("broken", 'extern "C" __global__ void f() { undefined_name(); }')
    with pytest.raises(build.CompileError, match=r"empty\.cu holds no"):
        build.library("empty", "int x;")


@pytest.mark.thorough
def test_toys_compile_without_warnings():
    for source in ("right", "wrong", "overruns"):
        assert build.warnings(opened().library(source).path) == ""


# --- sanitizers ---------------------------------------------------------------------------------


@pytest.mark.thorough
def test_sanitizers_see_overruns_and_undefined_behaviour():
    variables = build.sanitizer_environment()
    if variables is None:
        pytest.skip("the compiler has no address sanitizer")
    script = SUPPORT / "emulated" / "overruns.py"
    variables["OPENBLAS_NUM_THREADS"] = "1"  # processes that fork should have one thread
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    memory = "AddressSanitizer: .*(overflow|underflow|poison)"
    undefined = {
        "overflow": "signed integer overflow",
        "shift": "shift exponent",
        "convert": "outside the range of representable values",
    }
    assert len(told) == 10 * 3
    for case, (status, errors) in told.items():
        kernel, at = case.split()
        if at == "20" or (at == "-1" and kernel in undefined):
            assert (status, errors) == (0, ""), case
        else:
            assert status != 0, case
            assert re.search(undefined.get(kernel, memory), errors), (case, errors)
            assert kernel in errors, (case, errors)  # the trace names it
