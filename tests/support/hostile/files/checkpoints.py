"""Tampering with what an interrupted run left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import damage, documents
from .damage import Rng


def _ranges(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("genes-*") if p.is_file())


def _pick(rng: Rng, folder: Path) -> Path:
    files = _ranges(folder)
    return files[int(rng.integers(len(files)))] if files else folder / "run.json"


def _bytes(rng: Rng, folder: Path) -> str:
    path = _pick(rng, folder)
    change = list(damage.BYTES.values())[int(rng.integers(len(damage.BYTES)))]
    return change(rng, path)


def _exchanged(rng: Rng, folder: Path) -> str:
    one, other = _pick(rng, folder), _pick(rng, folder)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return f"{one.name} and {other.name} exchanged"


def _values(rng: Rng, folder: Path) -> str:
    path = _pick(rng, folder)
    content = bytearray(path.read_bytes())
    n = max(0, len(content) // 8 - 20)
    if not n:
        return "no values"
    value = float(rng.choice([np.nan, 0.0, 1.0, -1.0, np.inf]))
    start = len(content) - 8 * n
    if rng.random() < 0.5:
        start, n = start + 8 * int(rng.integers(n)), 1
    content[start : start + 8 * n] = np.full(n, value).tobytes()
    path.write_bytes(content)
    return f"{n} values of {path.name} are {value}"


def _renamed(rng: Rng, folder: Path) -> str:
    path = _pick(rng, folder)
    name = path.name
    kinds: dict[str, Callable[[], str]] = {
        "kind": lambda: name.replace("fractional", "*").replace("whole", "fractional").replace(
            "*", "whole"),
        "genes": lambda: name.replace("genes-00000000", "genes-00000001", 1),
        "beyond": lambda: name.replace("genes-000000", "genes-000009", 1),
        "wider": lambda: name[:16] + "000000013" + name[25:],
        "maximum": lambda: name.replace("_0.0_", "_-5.0_"),
        "largest": lambda: name.rpartition("_")[0] + "_1e300.npy",
        "nan": lambda: name.rpartition("_")[0] + "_nan.npy",
        "aside": lambda: name + ".bak",
        "odd": lambda: "genes-x.npy",
        "upper": lambda: name.upper(),
    }  # fmt: skip
    kind = str(rng.choice(list(kinds)))
    path.rename(folder / kinds[kind]())
    return f"{name} renamed: {kind}"


def _copied(rng: Rng, folder: Path) -> str:
    """The same range under another name, so that ranges overlap."""
    path = _pick(rng, folder)
    start = int(rng.integers(0, 12))
    new = folder / f"genes-{start:09d}-{start + 2:09d}{path.name[25:]}"
    if not new.exists():
        shutil.copy(path, new)
    return f"{path.name} copied to {new.name}"


def _gone(rng: Rng, folder: Path) -> str:
    files = sorted(p for p in folder.iterdir())
    path = files[int(rng.integers(len(files)))]
    path.unlink() if path.is_file() or path.is_symlink() else shutil.rmtree(path)
    return f"{path.name} gone"


def _put(rng: Rng, folder: Path) -> str:
    files = sorted(p for p in folder.iterdir())
    return damage.put_instead(rng, files[int(rng.integers(len(files)))])


def _run(rng: Rng, folder: Path) -> str:
    path = folder / "run.json"
    if not path.is_file():
        return "no run.json any more"
    content, what = documents.edit(rng, path.read_bytes())
    path.write_bytes(content)
    return f"run.json: {what}"


_FINISHED: list[Any] = [
    {}, [], None, 3, "x", {"file": None}, {"file": {"inode": 0, "size": 0, "mtime_ns": 0}},
    {"file": {"inode": "x"}, "n_hits": [1]},
]  # fmt: skip


def _finished(rng: Rng, folder: Path) -> str:
    path = folder / "finished.json"
    kind = int(rng.integers(len(_FINISHED) + 3))
    if kind < len(_FINISHED):
        path.write_text(json.dumps(_FINISHED[kind]))
        return f"finished.json = {_FINISHED[kind]!r}"
    if kind == len(_FINISHED):
        path.mkdir()
        return "finished.json a folder"
    path.write_bytes(b"\xff{" if kind % 2 else b"[" * 5000)
    return "finished.json is junk"


def _output(rng: Rng, folder: Path) -> str:
    """Something where the output will be."""
    output = folder.parent / "out.parquet"
    kind = str(rng.choice(["folder", "link", "nowhere", "loop", "fifo"]))
    if kind == "folder":
        output.mkdir()
    elif kind == "fifo":
        output.write_bytes(b"")
        damage.put_instead(np.random.default_rng(1), output)
    else:
        output.symlink_to(
            {"link": "elsewhere.parquet", "nowhere": "no/where", "loop": output.name}[kind]
        )
    return f"the output is a {kind}"


def _folder(rng: Rng, folder: Path) -> str:
    """The folder itself is something else."""
    return damage.put_instead(rng, folder)


def _junk(rng: Rng, folder: Path) -> str:
    name = str(rng.choice(["x.tmp", "split", "split/x", "genes-1-2.npy", ".DS_Store", "lock/x"]))
    path = folder / name
    if path.parent.is_dir() and not path.exists():
        path.write_bytes(b"junk")
    return f"{name} added"


CHECKPOINT: dict[str, Callable[[Rng, Path], str]] = {
    "bytes of a range": _bytes,
    "values of a range": _values,
    "ranges exchanged": _exchanged,
    "range renamed": _renamed,
    "range copied": _copied,
    "file gone": _gone,
    "file of another kind": _put,
    "run.json": _run,
    "finished.json": _finished,
    "output": _output,
    "folder": _folder,
    "junk": _junk,
}
