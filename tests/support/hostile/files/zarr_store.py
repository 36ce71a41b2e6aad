"""Changes to zarr stores, in folders and zip archives."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import damage, documents
from .damage import Rng
from .made import GROUP

_NOTES = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
_READ = ("X", f"obs/{GROUP}", "obs/_index", "var/_index", "obs/.z", "obs/zarr.json", "var/.z")


def _files(store: Path) -> list[Path]:
    """Files that a call reads, and some that it does not."""
    found = sorted(p for p in store.rglob("*") if p.is_file())
    read = [p for p in found if str(p.relative_to(store)).startswith(_READ)]
    return [*read, *read, *read, *found]


def _pick(rng: Rng, store: Path, *, notes: bool | None = None) -> Path:
    files = [p for p in _files(store) if notes is None or (p.name in _NOTES) == notes]
    return files[int(rng.integers(len(files)))]


def _note(rng: Rng, store: Path) -> str:
    path = _pick(rng, store, notes=True)
    content, what = documents.edit(rng, path.read_bytes())
    path.write_bytes(content)
    return f"{path.relative_to(store)}: {what}"


_FIELDS = ("shape", "chunks", "dtype", "data_type", "order", "compressor", "filters", "fill_value",
           "zarr_format", "chunk_grid", "codecs", "chunk_key_encoding", "node_type")  # fmt: skip
_VALUES: list[Any] = [
    [10**12], [60, 10**9], [0], [-1], [1.5], [60, 13, 1], [], None, "<f8", ">i4", "|O", "float64",
    "int8", "string", "F", {"id": "zlib", "level": 1}, {"id": "unknown"}, [{"id": "delta"}], 3, 2,
    "NaN", 7, [{"name": "bytes"}], [{"name": "unknown"}], [], "group", "array", [1], [13], [60],
]  # fmt: skip


def _field(rng: Rng, store: Path) -> str:
    notes = [p for p in _files(store) if p.name in (".zarray", "zarr.json")]
    path = notes[int(rng.integers(len(notes)))]
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return "no JSON any more"
    names = [name for name in _FIELDS if isinstance(content, dict) and name in content]
    if not names:
        return "nothing to change"
    name = names[int(rng.integers(len(names)))]
    value = _VALUES[int(rng.integers(len(_VALUES)))]
    if name == "chunk_grid" and isinstance(value, list):
        value = {"name": "regular", "configuration": {"chunk_shape": value}}
    content[name] = value
    path.write_text(json.dumps(content))
    return f"{path.relative_to(store)}: {name} = {value!r}"


def _bytes(rng: Rng, store: Path) -> str:
    path = _pick(rng, store)
    change = list(damage.BYTES.values())[int(rng.integers(len(damage.BYTES)))]
    return f"{path.relative_to(store)}: {change(rng, path)}"


def _gone(rng: Rng, store: Path) -> str:
    path = _pick(rng, store)
    if rng.random() < 0.3 and path.parent != store:
        path = path.parent
        shutil.rmtree(path)
    else:
        path.unlink()
    return f"{path.relative_to(store)} gone"


def _exchanged(rng: Rng, store: Path) -> str:
    one, other = _pick(rng, store), _pick(rng, store)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return f"{one.relative_to(store)} and {other.relative_to(store)} exchanged"


def _put(rng: Rng, store: Path) -> str:
    path = _pick(rng, store)
    return f"{path.relative_to(store)}: {damage.put_instead(rng, path)}"


def _linked(rng: Rng, store: Path) -> str:
    path = _pick(rng, store, notes=False)
    target = (store.parent if rng.random() < 0.5 else store) / "beside.bin"
    path.rename(target)
    path.symlink_to(os.path.relpath(target, path.parent))
    return f"{path.relative_to(store)} a link to {os.path.relpath(target, store)}"


def _more(rng: Rng, store: Path) -> str:
    folder = _pick(rng, store).parent
    name = str(rng.choice([".DS_Store", "x", "9.9", "c"]))
    target = folder / name
    if not target.exists():
        target.write_bytes(b"junk")
    return f"{target.relative_to(store)} added"


STORE: dict[str, Callable[[Rng, Path], str]] = {
    "note": _note,
    "field of a note": _field,
    "bytes of a file": _bytes,
    "file gone": _gone,
    "files exchanged": _exchanged,
    "file of another kind": _put,
    "file linked": _linked,
    "file added": _more,
}


def in_archive(change: Callable[[Rng, Path], str]) -> Callable[[Rng, Path], str]:
    """The same change to what is in a zip archive."""

    def changed(rng: Rng, path: Path) -> str:
        folder = path.with_suffix(".unpacked")
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        what = change(rng, folder)
        path.unlink()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                archive.write(file, file.relative_to(folder))
        shutil.rmtree(folder)
        return what

    return changed
