"""Processors and memory that this process may use, and sizes as text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdex_gpu.errors import OptionError
from pdex_gpu.utils import resources
from pdex_gpu.utils.resources import available_memory, cpu_count, memory_budget


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.fixture
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 16),
        ("400000 100000", 4),
        ("250000 100000", 3),
        ("50000 100000", 1),
        ("9900000 100000", 16),
    ],
)
@pytest.mark.usefixtures("sixteen")
def test_processors_by_cgroup_2(tmp_path: Path, quota: str, expected: int) -> None:
    assert cpu_count(write(tmp_path, cpu_DOT_max=quota), tmp_path / "no-membership") == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("300000", 3), ("150000", 2)])
@pytest.mark.usefixtures("sixteen")
def test_processors_by_cgroup_1(tmp_path: Path, quota: str, expected: int) -> None:
    root = write(tmp_path, cpu__cpu_DOT_cfs_quota_us=quota, cpu__cpu_DOT_cfs_period_us="100000")
    assert cpu_count(root, tmp_path / "no-membership") == expected


@pytest.mark.usefixtures("sixteen")
def test_processors_by_nested_cgroups(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    membership = tmp_path / "membership"
    write(root / "user.slice", cpu_DOT_max="800000 100000")
    write(root / "user.slice/a.scope", cpu_DOT_max="500000 100000")
    write(root / "other", cpu_DOT_max="100000 100000")
    membership.write_text("0::/user.slice/a.scope\n")
    assert cpu_count(root, membership) == 5
    write(root / "user.slice", cpu_DOT_max="200000 100000")  # an outer quota holds too
    assert cpu_count(root, membership) == 2
    one = write(tmp_path / "one/cpu,cpuacct/job", cpu_DOT_cfs_quota_us="300000")
    (tmp_path / "one/cpu").symlink_to(one.parent)
    membership.write_text("4:cpu,cpuacct:/job\n1:name=systemd:/init\n")
    assert cpu_count(tmp_path / "one", membership) == 3


@pytest.mark.usefixtures("a_gigabyte")
def test_memory_by_nested_cgroups(tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    write(root / "jobs", memory_DOT_max="900000000", memory_DOT_current="100000000")
    write(root / "jobs/7", memory_DOT_max="max", memory_DOT_current="1")
    membership.write_text("0::/jobs/7\n")
    assert available_memory(root, membership) == 800_000_000


@pytest.mark.usefixtures("sixteen")
def test_processors_without_a_cgroup(tmp_path: Path) -> None:
    assert cpu_count(tmp_path / "nothing", tmp_path / "no-membership") == 16


def test_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 7}, raising=False)
    assert cpu_count(write(tmp_path, cpu_DOT_max="800000 100000"), tmp_path / "no-membership") == 2


def test_systems_without_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cpu_count(tmp_path, tmp_path / "no-membership") == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu_count(tmp_path, tmp_path / "no-membership") == 1


@pytest.fixture
def a_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_machine_memory", lambda: 10**9)


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [
        ("600000000", "100000000", 500_000_000),
        ("600000000", "700000000", 0),
        ("9000000000", "1", 10**9),
        ("max", "100000000", 10**9),
    ],
)
@pytest.mark.usefixtures("a_gigabyte")
def test_memory_by_cgroup_2(tmp_path: Path, limit: str, used: str, expected: int) -> None:
    root = write(tmp_path, memory_DOT_max=limit, memory_DOT_current=used)
    assert available_memory(root) == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [("300000000", 200_000_000), (str(2**63 - 4096), 10**9)]
)
@pytest.mark.usefixtures("a_gigabyte")
def test_memory_by_cgroup_1(tmp_path: Path, limit: str, expected: int) -> None:
    root = tmp_path / "memory"
    root.mkdir()
    (root / "memory.limit_in_bytes").write_text(limit + "\n")
    (root / "memory.usage_in_bytes").write_text("100000000\n")
    assert available_memory(tmp_path) == expected


@pytest.mark.usefixtures("a_gigabyte")
def test_memory_without_a_cgroup(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == 10**9


def test_memory_of_this_machine(tmp_path: Path) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 10**6 < available_memory(tmp_path) <= total


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("4 GB", 4 * 10**9),
        ("4gb", 4 * 10**9),
        ("4G", 4 * 10**9),
        ("512MiB", 512 * 2**20),
        ("512 mib", 512 * 2**20),
        ("512Mi", 512 * 2**20),
        ("1.5GB", 1_500_000_000),
        ("2TB", 2 * 10**12),
        ("1TiB", 2**40),
        ("100K", 100_000),
        ("100KiB", 102_400),
        (" 12345 ", 12_345),
        ("12345B", 12_345),
        ("1e6", 10**6),
    ],
)
def test_sizes_as_text(text: str, size: int) -> None:
    assert memory_budget(text) == size


@given(n=st.integers(1, 10**15))
def test_whole_numbers_are_bytes(n: int) -> None:
    assert memory_budget(n) == n
    assert memory_budget(str(n)) == pytest.approx(n, rel=1e-15)


@pytest.mark.parametrize(
    ("memory", "size"), [(0.25, 250), (1.0, 1000), (None, 500), (4096.0, 4096)]
)
def test_fractions_are_of_what_is_free(
    memory: float | None, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 1000)
    assert memory_budget(memory) == size


@pytest.mark.parametrize(
    "memory",
    ["", "GB", "four GB", "4XB", "-4GB", "0", "0.5", "inf", "nan", "1 2", "4GBB4",
     0, -1, 0.0, -0.5, float("nan"), float("inf"), True, b"4GB", [4], (1,)],
)  # fmt: skip
def test_what_is_not_a_size(memory: object) -> None:
    with pytest.raises(OptionError, match="is not a size"):
        memory_budget(memory)  # type: ignore[arg-type]
