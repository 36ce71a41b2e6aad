"""The gate: errors of libraries become ours, errors of our own lines do not."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pyarrow.parquet as pq
import pytest

from pdex_gpu.errors import DataError, FileFormatError, MemoryBudgetError
from pdex_gpu.utils import foreign_errors


def ours(code: str) -> None:
    """Run a line as one of the package's own."""
    exec(
        compile(code, str(Path(foreign_errors.__file__).with_name("line.py")), "exec"),
        {"json": json},
    )


def test_an_error_of_a_library_is_told_with_the_file_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        file.create_group("X")
        with (
            pytest.raises(FileFormatError, match=r"^X/data of 'a\.h5ad' cannot be read") as told,
            foreign_errors.reading("X/data of 'a.h5ad'", "HDF5"),
        ):
            file["X/data"]
    assert "Copy or download it again. HDF5 says: KeyError" in str(told.value)
    assert isinstance(told.value.__cause__, KeyError)


def test_an_error_of_compiled_code_is_that_of_a_library(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    path.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with (
        pytest.raises(FileFormatError, match="Parquet says"),
        foreign_errors.reading("a", "Parquet"),
    ):
        pq.ParquetFile(path)


@pytest.mark.parametrize(
    ("line", "error"),
    [("{}['a']", KeyError), ("1 + 'a'", TypeError), ("[][0]", IndexError)],
)
def test_an_error_of_our_own_lines_passes(line: str, error: type[Exception]) -> None:
    with pytest.raises(error) as told, foreign_errors.reading("a", "HDF5"):
        ours(line)
    assert not isinstance(told.value, FileFormatError)


@pytest.mark.parametrize("line", ["json.loads('{')", "b'\\xff'.decode()", "open('/no/such')"])
def test_what_only_content_gives_rise_to_is_told(line: str) -> None:
    with pytest.raises(FileFormatError, match="JSON says"), foreign_errors.reading("a", "JSON"):
        ours(line)


def test_errors_of_the_package_pass_as_they_are() -> None:
    with pytest.raises(DataError, match=r"^as it is$"), foreign_errors.reading("a", "HDF5"):
        raise DataError("as it is")


def test_refused_memory_is_told() -> None:
    told = pytest.raises(MemoryBudgetError, match="HDF5 asks for more memory")
    with told, foreign_errors.reading("a", "HDF5"):
        raise MemoryError


def test_interrupts_pass() -> None:
    with pytest.raises(KeyboardInterrupt), foreign_errors.reading("a", "HDF5"):
        raise KeyboardInterrupt
