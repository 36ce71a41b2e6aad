"""Changes to h5ad files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .damage import Areas, Rng, flip, overwrite
from .made import GROUP, replace, store

_PARTS = (
    "", "/data", "/indices", "/indptr", "/data", "/indices", "/indptr",
)  # fmt: skip
_FRAMES = (
    "obs", "var", f"obs/{GROUP}", f"obs/{GROUP}", f"obs/{GROUP}/codes", f"obs/{GROUP}/categories",
    f"obs/{GROUP}/values", f"obs/{GROUP}/mask", "obs/_index", "var/_index",
)  # fmt: skip


def raw_data(path: Path) -> Areas:
    """Where the values of datasets are in a file."""
    found: list[tuple[int, int]] = []

    def add(_: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset) or not node.size:
            return
        if node.chunks is None:
            if node.id.get_offset() is not None:
                found.append((node.id.get_offset(), node.id.get_storage_size()))
            return
        for i in range(node.id.get_num_chunks()):
            chunk = node.id.get_chunk_info(i)
            found.append((chunk.byte_offset, chunk.size))

    with h5py.File(path, "r") as file:
        file.visititems(add)
    return sorted((first, n) for first, n in found if n)


def _metadata(path: Path) -> Areas:
    """What is between the values."""
    found, at = [], 0
    for first, n in raw_data(path):
        if first > at:
            found.append((at, first - at))
        at = max(at, first + n)
    size = path.stat().st_size
    return [*found, (at, size - at)] if at < size else found


def flip_metadata(rng: Rng, path: Path) -> str:
    """Flip bits where no values are."""
    return f"metadata: {flip(rng, path, _metadata(path))}"


def flip_values(rng: Rng, path: Path) -> str:
    """Flip bits of values, as they are stored."""
    return f"values: {flip(rng, path, raw_data(path))}"


def overwrite_metadata(rng: Rng, path: Path) -> str:
    """Overwrite what is no values."""
    return f"metadata: {overwrite(rng, path, _metadata(path))}"


def _nodes(root: Any, matrix: str) -> list[str]:
    names = [*(matrix + part for part in _PARTS), *_FRAMES]
    return [name for name in names if name in root]


def _change(change: Callable[[Rng, Any, str], str]) -> Callable[[Rng, Path, str, str], str]:
    """A change to a node that is drawn from those that a call reads."""

    def changed(rng: Rng, path: Path, inner: str, matrix: str) -> str:
        with h5py.File(path, "r+") as file:
            root = file[inner or "/"]
            names = _nodes(root, matrix)
            if not names:
                return "nothing to change"
            name = names[int(rng.integers(len(names)))]
            return f"{name}: {change(rng, root, name)}"

    return changed


def _dataset(rng: Rng, root: Any, name: str) -> h5py.Dataset:
    """The node, or a dataset below it."""
    node = root[name]
    while isinstance(node, h5py.Group):
        names = [n for n in node if isinstance(node.get(n), h5py.Dataset | h5py.Group)]
        node = node[names[int(rng.integers(len(names)))]]
    return node


# --- nodes -------------------------------------------------------------------------------------


def _delete(rng: Rng, root: Any, name: str) -> str:
    del root[name]
    return "gone"


def _swap(rng: Rng, root: Any, name: str) -> str:
    names = [n for n in _nodes(root, "X") if not (n.startswith(name) or name.startswith(n))]
    if not names:
        return "nothing to exchange with"
    other = names[int(rng.integers(len(names)))]
    root.move(name, "aside")
    root.move(other, name)
    root.move("aside", other)
    return f"exchanged with {other}"


def _other_kind(rng: Rng, root: Any, name: str) -> str:
    node = root[name]
    kinds = ["group", "empty", "type", "scalar", "text", "deep", "none", "compound"]
    kind = str(rng.choice(kinds))
    attrs = dict(node.attrs)
    if isinstance(node, h5py.Dataset) and kind == "deep":
        replace(node, node[...][None, None])
        return "of two more axes"
    del root[name]
    if kind == "group":
        root.create_group(name)
    elif kind == "type":
        root[name] = np.dtype("f8")
    else:
        root[name] = {
            "empty": h5py.Empty("f8"), "scalar": 3.5, "text": "text", "deep": np.zeros((1, 1, 1)),
            "none": np.zeros(0), "compound": np.zeros(60, [("a", "f4"), ("b", "S3")]),
        }[kind]  # fmt: skip
    if rng.random() < 0.6 and kind != "type":
        root[name].attrs.update(attrs)
    return f"now a {kind}"


_TYPES: list[Any] = [
    "f2", ">f4", "f8", "i1", "u1", ">i4", "i8", "u8", "c8", "S4", "bool", "V4", np.longdouble,
    h5py.string_dtype(), h5py.ref_dtype, h5py.vlen_dtype("i4"), h5py.enum_dtype({"a": 0, "b": 1}),
]  # fmt: skip


def _retype(rng: Rng, root: Any, name: str) -> str:
    node = _dataset(rng, root, name)
    kind = np.dtype(_TYPES[int(rng.integers(len(_TYPES)))])
    try:
        values = np.asarray(node[...]).astype(kind)
        what = "converted"
    except (TypeError, ValueError):
        values, what = None, "with no values"
    if h5py.check_dtype(vlen=kind) is not None and kind != h5py.string_dtype():
        values, what = None, "with no values"
    attrs, shape, parent, last = dict(node.attrs), node.shape, node.parent, node.name
    del parent[last]
    if values is None:
        new = parent.create_dataset(last, shape, kind)
    else:
        new = parent.create_dataset(last, data=values, dtype=kind)
    new.attrs.update(attrs)
    return f"{last} as {kind}, {what}"


def _reshape(rng: Rng, root: Any, name: str) -> str:
    node = _dataset(rng, root, name)
    values = node[...]
    if not values.ndim:
        return "a scalar"
    axis = int(rng.integers(values.ndim))
    kind = str(rng.choice(["shorter", "longer", "none", "more axes", "turned", "half"]))
    n = values.shape[axis]
    new = {
        "shorter": lambda: np.delete(values, n - 1, axis) if n else values,
        "longer": lambda: np.concatenate([values, values.take([0], axis)], axis) if n else values,
        "none": lambda: values.take([], axis),
        "more axes": lambda: values[..., None],
        "turned": lambda: values.T if values.ndim > 1 else values[:, None].T,
        "half": lambda: values.take(range(n // 2), axis),
    }[kind]()
    replace(node, new, dtype=node.dtype)
    return f"{node.name} {kind}"


def _huge(rng: Rng, root: Any, name: str) -> str:
    node = _dataset(rng, root, name)
    n = 10 ** int(rng.integers(7, 16))
    attrs, kind, parent, last = dict(node.attrs), node.dtype, node.parent, node.name
    chunk = int(rng.choice([1, 100, 10**6]))
    shape: tuple[int, ...] = (n,) if node.ndim < 2 else (node.shape[0], n)
    chunks: tuple[int, ...] = (chunk,) if node.ndim < 2 else (1, chunk)
    values = node[...]
    del parent[last]
    new = parent.create_dataset(
        last, shape, kind, chunks=chunks, compression=str(rng.choice(["gzip", "lzf"]))
    )
    if rng.random() < 0.5 and values.ndim == 1:
        new[: len(values)] = values
    elif rng.random() < 0.5 and values.ndim == 2:
        new[:, : values.shape[1]] = values
    new.attrs.update(attrs)
    return f"{last} of {n:.0e} values in chunks of {chunk}"


def _huge_shape(rng: Rng, root: Any, name: str) -> str:
    node = root[name]
    size = [10 ** int(rng.integers(7, 16)), int(rng.choice([1, 13, 60, 10**9]))]
    if rng.random() < 0.5:
        size.reverse()
    node.attrs["shape"] = np.array(size)
    return f"shape {size}"


# --- attributes --------------------------------------------------------------------------------

_TEXTS: list[Any] = [
    "csr_matrix", "csc_matrix", "array", "dataframe", "categorical", "string-array", "dict", "raw",
    "nullable-integer", "nullable-boolean", "awkward-array", "anndata", "", "x", "\U0001f9ec",
    b"\xff", b"csr_matrix", 3, np.nan, np.arange(3), np.array(["a", "b"], "S1"), GROUP, "batch",
    np.bool_(True),
]  # fmt: skip
_SHAPES: list[Any] = [
    (60,), (60, 13, 1), (-60, 13), (60.0, 13.0), (60.5, 13), (np.nan, 13), (13, 60), (0, 0),
    (60, 14), (61, 13), (60, 12), (59, 13), (60, 2**31), (2**63 - 1, 13), "x", b"60", ["60", "13"],
    60, np.uint64(2**64 - 1), (np.inf, 13),
]  # fmt: skip


def _attribute(rng: Rng, root: Any, name: str) -> str:
    node = root[name]
    names = [*node.attrs, "encoding-type", "shape", "_index", "column-order", "h5sparse_format"]
    key = names[int(rng.integers(len(names)))]
    if rng.random() < 0.2:
        if key in node.attrs:
            del node.attrs[key]
        return f"no attribute {key}"
    of_shape = key == "shape" and rng.random() < 0.9
    choices = _SHAPES if of_shape else _TEXTS
    value = choices[int(rng.integers(len(choices)))]
    if key in node.attrs:
        del node.attrs[key]
    kind = None
    if isinstance(value, bytes):
        value, kind = np.bytes_(value), h5py.string_dtype("utf-8", len(value))
    elif isinstance(value, list):
        kind = h5py.string_dtype()
    node.attrs.create(key, value, dtype=kind)
    return f"attribute {key} = {value!r}"


# --- values ------------------------------------------------------------------------------------


def _values(rng: Rng, root: Any, name: str) -> str:
    node = _dataset(rng, root, name)
    if not node.size or node.dtype.kind not in "biufO":
        return "no values to change"
    values = node[...]
    flat = values.reshape(-1)
    i, j = (int(k) for k in rng.integers(flat.size, size=2))
    if node.dtype.kind == "O":
        choices: list[Any] = [flat[j], b"", b"\xff", b"\xed\xa0\x80", b"ctrl", b"a" * 10_000, b"\0"]
    elif node.dtype.kind == "f":
        choices = [np.nan, np.inf, -np.inf, -1.0, -0.0, 1e30, flat[j], 0.5, 5e-324]
    elif node.dtype.kind == "b":
        choices = [not flat[i]]
    else:
        limits = np.iinfo(node.dtype)
        choices = [limits.max, limits.min, flat[j], 13, 60]
        choices += [-1, -2] if limits.min else [0, 1]
        choices += [flat[i] + 1] if flat[i] < limits.max else []
    value = choices[int(rng.integers(len(choices)))]
    if rng.random() < 0.1:
        flat[:] = value
        what = f"all {value!r:.40}"
    elif rng.random() < 0.1:
        flat[:] = rng.permutation(flat)
        what = "shuffled"
    else:
        flat[i] = value
        what = f"[{i}] = {value!r:.40}"
    node[...] = values
    return f"{node.name}{what}"


# --- links -------------------------------------------------------------------------------------


def _link(rng: Rng, root: Any, name: str) -> str:
    kinds = ["itself", "circle", "nowhere", "missing file", "elsewhere", "passwd", "fifo",
             "outside", "other node", "own file"]  # fmt: skip
    kind = str(rng.choice(kinds))
    file = Path(root.file.filename)
    if kind == "other node":
        names = _nodes(root, "X")
        target = root[names[int(rng.integers(len(names)))]].name
        del root[name]
        if target in root or target != f"/{name}":
            root[name] = h5py.SoftLink(target)
        return f"a soft link to {target}"
    if kind == "outside":  # a copy of the file, in another folder
        other = file.parent / "other"
        other.mkdir(exist_ok=True)
        (other / "copy.h5").write_bytes(_flushed(root))
        full = root[name].name
        del root[name]
        target = "other/copy.h5" if rng.random() < 0.5 else f"../{file.parent.name}/other/copy.h5"
        root[name] = h5py.ExternalLink(target, full)
        return "an external link to a copy in another folder"
    full = root[name].name
    del root[name]
    fifo = file.parent / "fifo"
    if kind == "circle":
        root["circle"] = h5py.SoftLink(full)
    if kind == "fifo" and not fifo.exists():
        os.mkfifo(fifo)
    root[name] = {
        "itself": h5py.SoftLink(full),
        "circle": h5py.SoftLink(f"{root.name}/circle"),
        "nowhere": h5py.SoftLink("/nowhere/at/all"),
        "missing file": h5py.ExternalLink("missing.h5", full),
        "elsewhere": h5py.ExternalLink("/tmp/missing.h5", full),
        "passwd": h5py.ExternalLink("/etc/passwd", full),
        "fifo": h5py.ExternalLink("fifo", full),
        "own file": h5py.ExternalLink(file.name, full),
    }[kind]
    return f"a link: {kind}"


def _flushed(root: Any) -> bytes:
    root.file.flush()
    return Path(root.file.filename).read_bytes()


def _moved(rng: Rng, root: Any, name: str) -> str:
    """Move a node and leave a link within the file: nothing changes."""
    root.move(name, "moved")
    target = root["moved"].name
    root[name] = h5py.SoftLink(target) if rng.random() < 0.5 else root["moved"]
    return "moved, a link in its place"


# --- storage -----------------------------------------------------------------------------------


def _unwritten(rng: Rng, root: Any, name: str) -> str:
    node = _dataset(rng, root, name)
    if not node.size:
        return "no values"
    attrs, shape, kind, values = dict(node.attrs), node.shape, node.dtype, node[...]
    parent, last = node.parent, node.name
    del parent[last]
    how = str(rng.choice(["contiguous", "chunks", "some chunks", "some chunks", "fill value"]))
    chunks = None if how == "contiguous" else tuple(max(1, n // 3) for n in shape)
    fill = 1 if how == "fill value" and kind.kind in "iuf" else None
    new = parent.create_dataset(last, shape, kind, chunks=chunks, fillvalue=fill)
    if how == "some chunks":
        new[: shape[0] // 3] = values[: shape[0] // 3]
    new.attrs.update(attrs)
    return f"{last} not written: {how}"


def _virtual(rng: Rng, root: Any, name: str) -> str:
    node = _dataset(rng, root, name)
    if not node.size or node.dtype.kind == "O":
        return "no values"
    attrs, shape, kind, parent, last = (
        dict(node.attrs), node.shape, node.dtype, node.parent, node.name,
    )  # fmt: skip
    how = str(rng.choice(["missing", "beside", "same file", "elsewhere", "half"]))
    folder = Path(root.file.filename).parent
    if how in ("beside", "half"):
        with h5py.File(folder / "source.h5", "w") as source:
            source["x"] = node[...]
    layout = h5py.VirtualLayout(shape, kind)
    source = {"missing": "missing.h5", "same file": ".", "elsewhere": "/etc/passwd"}.get(
        how, "source.h5"
    )
    if how == "same file":
        parent.move(last, "virtual source")
        inner = parent["virtual source"].name
    else:
        inner = "x"
        del parent[last]
    if how == "half":
        n = shape[0] // 2
        layout[:n] = h5py.VirtualSource(source, inner, shape)[:n]
    else:
        layout[...] = h5py.VirtualSource(source, inner, shape)
    new = parent.create_virtual_dataset(last, layout)
    new.attrs.update(attrs)
    return f"{last} virtual: {how}"


def _external(rng: Rng, root: Any, name: str) -> str:
    node = _dataset(rng, root, name)
    if not node.size or node.dtype.kind not in "iuf":
        return "no values"
    attrs, shape, kind, parent, last = (
        dict(node.attrs), node.shape, node.dtype, node.parent, node.name,
    )  # fmt: skip
    folder = Path(root.file.filename).parent
    (folder / "beside.bin").write_bytes(np.ascontiguousarray(node[...]).tobytes())
    if not (folder / "fifo").exists():
        os.mkfifo(folder / "fifo")
    source = str(rng.choice(["/etc/passwd", "beside.bin", "missing.bin", "/dev/zero", "fifo"]))
    del parent[last]
    kind = np.dtype("i1") if "passwd" in source else kind
    new = parent.create_dataset(last, shape, kind, external=[(source, 0, h5py.h5f.UNLIMITED)])
    new.attrs.update(attrs)
    return f"{last} external: {source}"


def _stored_anew(rng: Rng, root: Any, name: str) -> str:
    """Other chunks and filters: nothing changes."""
    node = _dataset(rng, root, name)
    how = str(
        rng.choice(["gzip", "lzf", "chunked", "shuffle", "fletcher chunked", "gzip fletcher"])
    )
    if not node.size or not node.ndim:
        return "no values"
    store(node, how)
    return f"{node.name} {how}"


def user_block(rng: Rng, path: Path, inner: str, matrix: str) -> str:
    """The same file behind a block of a user: nothing changes."""
    size = int(rng.choice([512, 4096]))
    other = path.with_suffix(".other")
    with h5py.File(path, "r") as old, h5py.File(other, "w", userblock_size=size) as new:
        for name in old:
            old.copy(name, new)
        new.attrs.update(dict(old.attrs))
    other.rename(path)
    return f"a user block of {size} bytes"


NODES: dict[str, Callable[[Rng, Path, str, str], str]] = {
    "node gone": _change(_delete),
    "nodes exchanged": _change(_swap),
    "node of another kind": _change(_other_kind),
    "type": _change(_retype),
    "shape of a dataset": _change(_reshape),
    "huge dataset": _change(_huge),
    "huge shape": _change(_huge_shape),
    "attribute": _change(_attribute),
    "values": _change(_values),
    "link": _change(_link),
    "unwritten": _change(_unwritten),
    "virtual": _change(_virtual),
    "external": _change(_external),
    "moved": _change(_moved),
    "stored anew": _change(_stored_anew),
    "user block": user_block,
}
HARMLESS = {"moved", "stored anew", "user block"}
