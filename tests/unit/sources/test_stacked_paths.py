"""Lists, mappings and patterns of paths: which files they name, in which order, and how."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pdex_gpu.errors import MissingFileError, OptionError, UnsupportedDataError
from pdex_gpu.sources.formats import code_for, files_of, paths_in, shared_path
from pdex_gpu.sources.stacked.files import StackedFiles
from pdex_gpu.sources.stacked.paths import distinct_names, is_pattern, named_paths


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("plate10.h5ad", "plate2.h5ad", "plate1.h5ad", "notes.txt", "a[1].h5ad"):
        (tmp_path / name).touch()
    (tmp_path / "b[1]").mkdir()
    (tmp_path / "b[1]" / "x.h5ad").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_pattern_is_in_natural_order(folder: Path) -> None:
    found = named_paths("plate*.h5ad")
    assert list(found) == ["plate1", "plate2", "plate10"]
    assert list(named_paths(folder / "plate?.h5ad")) == ["plate1", "plate2"]
    assert list(named_paths("**/*.h5ad")) == ["a[1]", "x", "plate1", "plate2", "plate10"]
    assert named_paths(["plate10.h5ad", "plate[12].h5ad"]) == {
        "plate10": "plate10.h5ad",
        "plate1": "plate1.h5ad",
        "plate2": "plate2.h5ad",
    }


def test_what_exists_is_no_pattern(folder: Path) -> None:
    assert is_pattern("plate*.h5ad")
    assert is_pattern(folder / "plate[0-9].h5ad")
    for path in ("a[1].h5ad", "a[1].h5ad/mod/rna", "plate1.h5ad", "s3://bucket/*.zarr"):
        assert not is_pattern(path)
        assert not isinstance(code_for(path), StackedFiles)
    for other in (None, 3, b"*.h5ad", open):
        assert not is_pattern(other)
    assert list(named_paths("b[1]/*.h5ad")) == ["x"]


def test_lists_and_mappings_keep_their_order(folder: Path) -> None:
    assert list(named_paths(["plate2.h5ad", Path("plate1.h5ad")])) == ["plate2", "plate1"]
    assert named_paths({"b": Path("plate1.h5ad"), "a": "x"}) == {"b": "plate1.h5ad", "a": "x"}


def test_names_become_distinct() -> None:
    assert distinct_names(["a/x.h5ad", "b/y.h5ad"]) == ["x", "y"]
    assert distinct_names(["a/x.h5ad", "b/x.h5ad"]) == ["a/x", "b/x"]
    assert distinct_names(["x.h5ad", "x.zarr"]) == ["x.h5ad", "x.zarr"]
    assert distinct_names(["r1/outs/m.h5", "r2/outs/m.h5"]) == ["r1/outs/m", "r2/outs/m"]
    assert distinct_names(["s3://b/p1.zarr", "s3://b/p2.zarr"]) == ["p1", "p2"]
    assert distinct_names([]) == []


def test_another_process_gets_absolute_paths_by_name(folder: Path) -> None:
    expected = {f"plate{i}": str(folder / f"plate{i}.h5ad") for i in (1, 2, 10)}
    assert shared_path("plate*.h5ad") == expected
    assert paths_in(shared_path("plate*.h5ad")) == list(expected.values())
    assert files_of(["plate1.h5ad"]) == [Path("plate1.h5ad")]
    urls = {"a": "s3://b/p1.zarr"}
    assert shared_path(urls) == urls
    assert paths_in("x") == ["x"]
    assert paths_in(None) == []


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ([], OptionError, "The list of files is empty"),
        ({}, OptionError, "The list of files is empty"),
        ({1: "plate1.h5ad"}, OptionError, "The name 1 of a file must be text"),
        ({"a": ["plate1.h5ad"]}, UnsupportedDataError, r"data\['a'\] is a list. Only files"),
        (["plate1.h5ad", 3], UnsupportedDataError, r"data\[1\] is a int. Only files"),
        ([""], OptionError, "is empty"),
        (["a\0*"], OptionError, "null character"),
        (["plate1.h5ad", "./plate1.h5ad"], OptionError, "plate1.h5ad' occurs more than once"),
        ({"a": "plate1.h5ad", "b": "plate1.h5ad"}, OptionError, "occurs more than once"),
        ("none*.h5ad", MissingFileError, "No file matches 'none\\*.h5ad'. The folder '.*' holds "
         "'a\\[1\\].h5ad', 'b\\[1\\]', 'notes.txt', 'plate1.h5ad', 'plate2.h5ad', 'plate10"),
        ("p*/x*.h5ad", MissingFileError, "holds 'a"),
        ("no/*.h5ad", MissingFileError, "the folder '.*/no' cannot be listed"),
        ("b[1]/y*", MissingFileError, "b\\[1\\]' holds 'x.h5ad'"),
    ],
)  # fmt: skip
def test_refusals(folder: Path, data: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        named_paths(data)


def test_a_link_to_a_file_is_that_file(folder: Path) -> None:
    os.symlink("plate1.h5ad", "again.h5ad")
    with pytest.raises(OptionError, match=r"plate1.h5ad' occurs more than once"):
        named_paths("*.h5ad")


def test_too_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 1000))
    assert len(named_paths([f"p{i}.h5ad" for i in range(36)])) == 36
    with pytest.raises(OptionError, match=r"37 files .* only 100 open .* \(ulimit -n 165\)"):
        named_paths([f"p{i}.h5ad" for i in range(37)])
