"""Valid h5ad files that anndata would not write today: forms of old versions and other writers.

:func:`draw` makes a form of a number. Values must be whole numbers below 100, so that each dtype
holds them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

_INDEX_TYPES = ["<i4", "<i8", "<u2", "<u4", "<u8", ">i4", ">i8", "<f8", "<f4", ">f8"]
_POINTER_TYPES = ["<i4", "<i8", "<u4", "<u8", ">i8", "<f8", ">f8"]
_VALUE_TYPES = ["<f4", "<f8", ">f4", ">f8", "<f2", "<i4", "<i8", "<u2", "u1", "i1", ">i2", "<u8"]
_STORAGE = [
    "contiguous",
    "chunks",
    "small chunks",
    "one chunk",
    "gzip",
    "lzf",
    "shuffle",
    "checked",
]
_STRINGS = ["any length", "fixed", "fixed ASCII", "spaces", "array of one"]
_FRAMES = ["today", "0.7", "0.6", "text", "dictionary", "wide codes"]


@dataclass(frozen=True)
class Form:
    """How a file is stored; see :func:`write` for what the words mean."""

    layout: str = "csr"
    order: str = "sorted"
    repeats: bool = False
    zeros: bool = False
    values: str = "<f4"
    indices: str = "<i4"
    indptr: str = "<i4"
    storage: tuple[str, str, str] = ("chunks", "chunks", "chunks")
    strings: str = "any length"
    encoding: str = "today"
    shape: str = "<i8"
    frames: str = "today"
    libver: str = "latest"
    extra: tuple[str, ...] = field(default=())


def draw(seed: int) -> Form:
    """Draw a form."""
    rng = np.random.default_rng(seed)

    def one(of: list[str]) -> str:
        return of[rng.integers(len(of))]

    layout = one(["csr", "csr", "csc", "csc", "dense"])
    extra = ("user block", "link", "unlimited", "creation order")
    return Form(
        layout=layout,
        order=one(["sorted", "reversed", "shuffled", "one line"]),
        repeats=bool(rng.random() < 0.4),
        zeros=bool(rng.random() < 0.3),
        values=one(_VALUE_TYPES),
        indices=one(_INDEX_TYPES),
        indptr=one(_POINTER_TYPES),
        storage=(one(_STORAGE), one(_STORAGE), one(_STORAGE)),
        strings=one(_STRINGS),
        encoding=one(["today", "today", "h5sparse", "none of arrays"]),
        shape=one(["<i8", "<i4", "<u4", ">i8", "<f8"]),
        frames=one(_FRAMES),
        libver=one(["latest", "earliest", "v110"]),
        extra=tuple(name for name in extra if rng.random() < 0.25),
    )


def write(path: Path, values: np.ndarray, obs: pd.DataFrame, genes: list[str], form: Form) -> Path:
    """Write a file of this form.

    Parameters
    ----------
    path : pathlib.Path
    values : numpy.ndarray, shape (n_cells, n_genes)
    obs : pandas.DataFrame
        Columns of text.
    genes : list of str
    form : Form
    """
    more: dict[str, Any] = {"libver": (form.libver, "latest")}
    if "user block" in form.extra:
        more["userblock_size"] = 1024
    ordered = "creation order" in form.extra
    with h5py.File(path, "w", track_order=ordered, **more) as file:
        _attributes(file, form, {"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, frame in (("obs", obs), ("var", pd.DataFrame(index=genes))):
            _write_frame(file, name, frame, form)
        where = "elsewhere/matrix" if "link" in form.extra else "X"
        if form.layout == "dense":
            _write_array(file, where, values.astype(form.values), form, 0)
            if form.encoding != "none of arrays":
                _attributes(
                    file[where], form, {"encoding-type": "array", "encoding-version": "0.2.0"}
                )
        else:
            _write_sparse(file.create_group(where, track_order=ordered), values, form)
        if where != "X":
            file["X"] = h5py.SoftLink(f"/{where}")
    return path


# --- matrices -------------------------------------------------------------------------------------


def entries(values: np.ndarray, form: Form) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return data, indices and indptr of a sparse matrix, with the lines in the order of a form."""
    rng = np.random.default_rng(5)
    kind = sparse.csr_matrix if form.layout == "csr" else sparse.csc_matrix
    matrix = kind(values)
    n_minor = values.shape[1 if form.layout == "csr" else 0]
    data: list[float] = []
    indices: list[int] = []
    indptr = [0]
    for i, (a, b) in enumerate(zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)):
        x, j = matrix.data[a:b].astype(float), matrix.indices[a:b]
        if form.repeats:
            part = np.floor(x / 2)
            x, j = np.concatenate([x - part, part]), np.concatenate([j, j])
        if form.zeros:
            free = np.setdiff1d(np.arange(n_minor), j)[:2]
            x, j = np.concatenate([x, 0 * free]), np.concatenate([j, free])
        order = np.argsort(j, kind="stable")
        if form.order == "reversed":
            order = order[::-1]
        elif form.order == "shuffled" or (form.order == "one line" and i == 3):
            order = rng.permutation(len(j))
        data += x[order].tolist()
        indices += j[order].tolist()
        indptr.append(len(data))
    return np.array(data), np.array(indices), np.array(indptr)


def _write_sparse(group: h5py.Group, values: np.ndarray, form: Form) -> None:
    data, indices, indptr = entries(values, form)
    types = (form.values, form.indices, form.indptr)
    for k, (name, array) in enumerate((("data", data), ("indices", indices), ("indptr", indptr))):
        _write_array(group, name, array.astype(types[k]), form, k)
        if form.encoding == "today":
            _attributes(group[name], form, {"encoding-type": "array", "encoding-version": "0.2.0"})
    if form.encoding == "h5sparse":
        _attributes(group, form, {"h5sparse_format": form.layout})
        group.attrs["h5sparse_shape"] = np.array(values.shape, form.shape)
    else:
        _attributes(
            group, form, {"encoding-type": f"{form.layout}_matrix", "encoding-version": "0.1.0"}
        )
        group.attrs["shape"] = np.array(values.shape, form.shape)


def _write_array(group: Any, name: str, array: np.ndarray, form: Form, k: int) -> None:
    storage = form.storage[k]
    rows = max(1, len(array))
    chunks = {"chunks": rows // 3 + 1, "small chunks": 7, "one chunk": rows}.get(storage, 40)
    of = (min(chunks, rows), *array.shape[1:])
    if array.ndim == 2 and k == 0 and storage in ("small chunks", "lzf"):
        of = (of[0], 2)  # a dense matrix, by columns
    more: dict[str, Any] = {
        "gzip": {"compression": "gzip"},
        "lzf": {"compression": "lzf"},
        "shuffle": {"compression": "gzip", "shuffle": True},
        "checked": {"fletcher32": True},
    }.get(storage, {})
    unlimited = "unlimited" in form.extra
    if storage != "contiguous" or unlimited:
        more["chunks"] = of
    if unlimited:
        more["maxshape"] = (None,) * array.ndim
    group.create_dataset(name, data=array, **more)


# --- text -----------------------------------------------------------------------------------------


def _kind(length: int, strings: str) -> Any:
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(max(1, length))
    kind.set_strpad(h5py.h5t.STR_SPACEPAD if strings == "spaces" else h5py.h5t.STR_NULLTERM)
    kind.set_cset(h5py.h5t.CSET_ASCII if strings == "fixed ASCII" else h5py.h5t.CSET_UTF8)
    return kind


def _attributes(node: Any, form: Form, texts: dict[str, str]) -> None:
    for key, text in texts.items():
        if form.strings == "any length":
            node.attrs[key] = text
            continue
        one = form.strings == "array of one"
        length = len(text) + 2
        pad = b" " if form.strings == "spaces" else b"\0"
        kind = _kind(length, form.strings)
        space = h5py.h5s.create_simple((1,)) if one else h5py.h5s.create(h5py.h5s.SCALAR)
        attribute = h5py.h5a.create(node.id, key.encode(), kind, space)
        raw = np.array([text.encode().ljust(length, pad)], f"S{length}")
        attribute.write(raw if one else raw.reshape(()), mtype=kind)


def _write_texts(group: Any, name: str, texts: list[str], form: Form) -> None:
    if form.strings == "any length" or not texts:
        group.create_dataset(name, data=np.array(texts, object), dtype=h5py.string_dtype())
    else:
        length = max(map(len, texts)) + 1
        pad = b" " if form.strings == "spaces" else b"\0"
        kind = _kind(length, form.strings)
        space = h5py.h5s.create_simple((len(texts),))
        made = h5py.h5d.create(group.id, name.encode(), kind, space)
        raw = np.array([text.encode().ljust(length, pad) for text in texts], f"S{length}")
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, raw, mtype=kind)
    if form.encoding == "today":
        _attributes(
            group[name], form, {"encoding-type": "string-array", "encoding-version": "0.2.0"}
        )


# --- data frames ----------------------------------------------------------------------------------


def _write_frame(file: Any, name: str, frame: pd.DataFrame, form: Form) -> None:
    if form.frames == "0.6":
        _write_compound(file, name, frame, form)
        return
    group = file.create_group(name)
    index = (
        {"obs": "obs_names", "var": "var_names"}[name] if form.frames == "dictionary" else "_index"
    )
    if form.frames != "dictionary":
        version = "0.1.0" if form.frames == "0.7" else "0.2.0"
        _attributes(
            group,
            form,
            {"encoding-type": "dataframe", "encoding-version": version, "_index": index},
        )
        columns = [c.encode() for c in frame.columns] if form.strings == "fixed" else [*frame]
        order = np.array(columns, object if form.strings != "fixed" else None)
        if not columns:
            order = np.zeros(0)
        group.attrs["column-order"] = order
    _write_texts(group, index, [str(label) for label in frame.index], form)
    for column in frame.columns:
        _write_labels(group, column, frame[column].astype("category"), form)


def _write_labels(group: Any, name: str, column: Any, form: Form) -> None:
    codes, levels = column.cat.codes.to_numpy(), column.cat.categories.tolist()
    if form.frames in ("text", "dictionary"):
        _write_texts(group, name, column.astype(str).tolist(), form)
    elif form.frames == "0.7":
        group[name] = codes
        _write_texts(group.require_group("__categories"), name, levels, form)
        group[name].attrs["categories"] = group[f"__categories/{name}"].ref
    else:
        part = group.create_group(name)
        _attributes(part, form, {"encoding-type": "categorical", "encoding-version": "0.2.0"})
        part.attrs["ordered"] = False
        part["codes"] = codes.astype(">i4" if form.frames == "wide codes" else "i1")
        _write_texts(part, "categories", levels, form)


def _write_compound(file: Any, name: str, frame: pd.DataFrame, form: Form) -> None:
    text: Any = h5py.string_dtype() if form.strings == "any length" else "S12"
    fields = [("index", text), *((column, "i1") for column in frame.columns)]
    table = np.zeros(len(frame), fields)
    table["index"] = [str(label).encode() for label in frame.index]
    for column in frame.columns:
        found = frame[column].astype("category")
        table[column] = found.cat.codes
        levels = np.array([level.encode() for level in found.cat.categories])
        file.require_group("uns")[f"{column}_categories"] = levels
    file[name] = table
