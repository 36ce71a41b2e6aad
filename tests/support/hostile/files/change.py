"""What is done to a file, by the names that cases have for it."""

from __future__ import annotations

from pathlib import Path

from . import checkpoints, damage, documents, hdf5, parquet, zarr_store
from .damage import Rng
from .draw import Case
from .made import matrix_of

#: What is told of a change that stopped on its way.
FAILED = "cannot be done"


def change(case: Case, path: Path) -> list[str]:
    """Do to a file what a case says; tells what was done."""
    done = [_one(case, name, case.rng(k), path) for k, name in enumerate(case.changes)]
    print(*done, sep="\n", flush=True)  # what is told of a case that hangs
    return done


def _one(case: Case, name: str, rng: Rng, path: Path) -> str:
    try:
        return _change(case, name, rng, path)
    except Exception as error:  # an earlier change may have left nothing to change
        return f"{name} {FAILED}: {type(error).__name__}"


def _change(case: Case, name: str, rng: Rng, path: Path) -> str:
    if name == "put instead":
        return damage.put_instead(rng, path)
    if name == "link to it":
        return damage.link_to(rng, path)
    if not (path.is_dir() or path.is_file()):
        return f"{name} {FAILED}: nothing to read any more"
    if name in damage.BYTES:
        return damage.BYTES[name](rng, path)
    return {
        "h5ad": _h5ad, "zarr": _zarr, "parquet": _parquet, "json": _document, "csv": _document,
        "checkpoint": _checkpoint,
    }[case.family](case, name, rng, path)  # fmt: skip


def _h5ad(case: Case, name: str, rng: Rng, path: Path) -> str:
    if name == "flip metadata":
        return hdf5.flip_metadata(rng, path)
    if name == "flip values":
        return hdf5.flip_values(rng, path)
    if name == "overwrite metadata":
        return hdf5.overwrite_metadata(rng, path)
    inner = "mod/rna" if case.form.startswith("h5mu") else ""
    matrix = matrix_of(case.form).removeprefix("mod/rna/")
    return hdf5.NODES[name](rng, path, inner, matrix)


def _zarr(case: Case, name: str, rng: Rng, path: Path) -> str:
    make = zarr_store.STORE[name]
    return zarr_store.in_archive(make)(rng, path) if "zip" in case.form else make(rng, path)


def _parquet(case: Case, name: str, rng: Rng, path: Path) -> str:
    if name in ("flip footer", "overwrite footer"):
        make = damage.flip if name.startswith("flip") else damage.overwrite
        return f"footer: {make(rng, path, parquet.footer(path))}"
    return parquet.FILE[name](rng, path)


def _document(case: Case, name: str, rng: Rng, path: Path) -> str:
    make = documents.edit_csv if case.family == "csv" else documents.edit
    content, what = make(rng, path.read_bytes())
    path.write_bytes(content)
    return what


def _checkpoint(case: Case, name: str, rng: Rng, path: Path) -> str:
    return checkpoints.CHECKPOINT[name](rng, path)
