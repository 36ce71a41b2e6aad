"""Files of other writers: what anndata reads is read here, too, with the same answer.

Each case changes a file as some other writer would have it. Where anndata reads the result, the
truth is what anndata makes of it; where it does not, there is one error, or the answer for the file
as it was.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from source_reads import read_back
from stored_screens import assert_same_bits

from pdex_gpu import calibrate, differential_expression, estimate, pseudobulk
from pdex_gpu.errors import ColumnError, FileFormatError, PdexGpuError, TextEncodingWarning
from pdex_gpu.request.guides import read_guides
from pdex_gpu.sources.choice import MatrixChoice
from pdex_gpu.sources.dataset import Dataset
from pdex_gpu.sources.open import open_dataset

N_CELLS, N_GENES = 60, 5
COLUMNS = ["g", "text", "number", "fraction", "flag", "few", "maybe", "name"]


def example(kind: Callable[[np.ndarray], Any] = sparse.csr_matrix) -> ad.AnnData:
    rng = np.random.default_rng(0)
    values = rng.poisson(1.0, (N_CELLS, N_GENES)).astype(np.float32)
    index = pd.Index([f"cell{i}" for i in range(N_CELLS)])
    few = np.where(np.arange(N_CELLS) % 7 == 0, None, np.arange(N_CELLS) % 3)
    obs = pd.DataFrame(
        {
            "g": pd.Categorical(["A", "ctrl", None, "B"] * 15, categories=["ctrl", "B", "no", "A"]),
            "text": ["x", "yy", "z", "x"] * 15,
            "number": np.arange(N_CELLS) % 4,
            "fraction": np.where(np.arange(N_CELLS) % 5 == 0, np.nan, np.arange(N_CELLS) % 2 + 0.5),
            "flag": np.arange(N_CELLS) % 3 == 0,
            "few": pd.array(few, "Int64"),
            "maybe": pd.array(few, "Int64").astype("boolean"),
            "name": pd.array(np.where(few == 1, None, "s"), "string"),
        },
        index=index,
    )
    guides = pd.DataFrame(rng.random((N_CELLS, 3)) < 0.4, columns=["a", "b", "c"], index=index)
    guides["b"] = guides["b"].astype("boolean").mask(np.arange(N_CELLS) < 9)
    var = pd.DataFrame({"kept": True}, index=[f"gene{j}" for j in range(N_GENES)])
    found = ad.AnnData(
        kind(values), obs=obs, var=var, layers={"twice": kind(2 * values)},
        obsm={"guides": guides, "array": rng.random((N_CELLS, 3)) < 0.4},
    )  # fmt: skip
    found.raw = found.copy()
    return found


def write(path: Path, kind: Callable[[np.ndarray], Any] = sparse.csr_matrix) -> Path:
    with ad.settings.override(allow_write_nullable_strings=True):
        example(kind).write_h5ad(path, convert_strings_to_categoricals=False)
    return path


# --- how others write -------------------------------------------------------------------------


def each_node(file: h5py.File, change: Callable[[Any], None]) -> None:
    nodes: list[Any] = [file]
    file.visititems(lambda _, node: nodes.append(node))
    for node in nodes:
        change(node)


def fixed_type(length: int, padding: int = h5py.h5t.STR_NULLPAD, utf8: bool = True) -> Any:
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(max(1, length))
    kind.set_strpad(padding)
    kind.set_cset(h5py.h5t.CSET_UTF8 if utf8 else h5py.h5t.CSET_ASCII)
    return kind


def replace_texts(node: h5py.Dataset, kind: Any, pad: bytes = b"\0", length: int = 9) -> None:
    """The text of a dataset, of a fixed length."""
    file, name, attrs = node.file, node.name, dict(node.attrs)
    values = node.asstr()[:]
    del file[name]
    space = h5py.h5s.create_simple((len(values),))
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space)
    raw = np.array([v.encode().ljust(length, pad) for v in values], f"S{length}")
    # Written as they are: the type in memory is that of the file.
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, raw, mtype=kind)
    file[name].attrs.update(attrs)


def fixed_attributes(padding: int, pad: bytes, *, utf8: bool, one: bool = False) -> Any:
    def change(node: Any) -> None:
        for key, value in list(node.attrs.items()):
            if not isinstance(value, str):
                continue
            del node.attrs[key]
            kind = fixed_type(len(value) + 3, padding, utf8)
            space = h5py.h5s.create_simple((1,)) if one else h5py.h5s.create(h5py.h5s.SCALAR)
            attribute = h5py.h5a.create(node.id, key.encode(), kind, space)
            text = np.array([value.encode().ljust(len(value) + 3, pad)], f"S{len(value) + 3}")
            attribute.write(text if one else text.reshape(()), mtype=kind)

    return lambda file: each_node(file, change)


def fixed_lists(file: h5py.File) -> None:
    for name in ("obs", "var", "obsm/guides"):
        order = [str(n).encode() for n in file[name].attrs["column-order"]]
        del file[name].attrs["column-order"]
        file[name].attrs["column-order"] = np.array(order, "S12")


def no_columns(empty: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["var/kept"], file["var"].attrs["column-order"]
        file["var"].attrs["column-order"] = empty

    return change


_TEXTS = ["obs/_index", "var/_index", "obs/text", "obs/g/categories", "obs/name/values"]


def fixed_texts(padding: int, pad: bytes, *, utf8: bool = True, encoded: bool = True) -> Any:
    def change(file: h5py.File) -> None:
        for name in _TEXTS:
            replace_texts(file[name], fixed_type(9, padding, utf8), pad)
            if not encoded:
                for key in ("encoding-type", "encoding-version"):
                    del file[name].attrs[key]

    return change


def ascii_texts(file: h5py.File) -> None:
    for name in _TEXTS:
        values, attrs = file[name].asstr()[:], dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=values, dtype=h5py.string_dtype("ascii"))
        file[name].attrs.update(attrs)


def as_type(*names: str, dtype: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for name in names:
            values, attrs = file[name][()], dict(file[name].attrs)
            del file[name]
            file.create_dataset(name, data=values.astype(dtype), chunks=True, compression="gzip")
            file[name].attrs.update(attrs)

    return change


def without(*keys: str, where: Callable[[str], bool] = lambda name: True) -> Any:
    def change(node: Any) -> None:
        for key in keys:
            if where(node.name) and key in node.attrs:
                del node.attrs[key]

    return lambda file: each_node(file, change)


_ENCODING = ("encoding-type", "encoding-version")


def old_sparse(file: h5py.File) -> None:
    for name in ("X", "layers/twice", "raw/X"):
        attrs = file[name].attrs
        attrs["h5sparse_format"] = str(attrs["encoding-type"]).removesuffix("_matrix")
        attrs["h5sparse_shape"] = attrs["shape"]
        for key in (*_ENCODING, "shape"):
            del attrs[key]


def renamed_index(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for frame in ("obs", "var"):
            file.move(f"{frame}/_index", f"{frame}/{name}")
            file[frame].attrs["_index"] = name

    return change


def index_without_attribute(name: str | None) -> Callable[[h5py.File], None]:
    """A dictionary of columns, as some wrote a data frame."""

    def change(file: h5py.File) -> None:
        for frame, own in (("obs", "obs_names"), ("var", "var_names")):
            file.move(f"{frame}/_index", f"{frame}/{name or own}")
            for key in (*_ENCODING, "_index", "column-order"):
                del file[frame].attrs[key]

    return change


def old_categories(*, by: str) -> Callable[[h5py.File], None]:
    """Codes with categories in a group for all columns, as anndata 0.7 wrote them."""

    def change(file: h5py.File) -> None:
        obs = file["obs"]
        codes, categories = obs["g/codes"][:], obs["g/categories"].asstr()[:]
        del obs["g"]
        obs["g"] = codes
        group = obs.create_group("__categories")
        name = "g" if by != "another name" else "levels_of_g"
        group[name] = np.array(categories, object)
        obs["g"].attrs["categories"] = group[name].ref
        obs.attrs["encoding-version"] = "0.1.0"
        for column in ("few", "maybe", "name"):
            del obs[column]
        listed = [c for c in obs.attrs["column-order"] if c in obs]
        del obs.attrs["column-order"]
        obs.attrs["column-order"] = listed

    return change


def compound(texts: str, *, categories: bool) -> Callable[[h5py.File], None]:
    """Data frames as one dataset each, as anndata before 0.7 wrote them."""

    def change(file: h5py.File) -> None:
        kind: Any = "S12" if texts == "fixed" else h5py.string_dtype()
        names = file["obs/_index"].asstr()[:]
        codes, levels = file["obs/g/codes"][:], file["obs/g/categories"].asstr()[:]
        plain = np.array([*levels, "nan"], object)[codes]
        group = codes if categories else plain
        fields = [("index", kind), ("g", group.dtype if categories else kind), ("number", "i8")]
        table = np.zeros(N_CELLS, fields)
        table["index"], table["g"], table["number"] = names, group, file["obs/number"][:]
        genes = np.zeros(N_GENES, [("index", kind), ("kept", "?")])
        genes["index"], genes["kept"] = file["var/_index"].asstr()[:], True
        for name, values in (("obs", table), ("var", genes)):
            del file[name]
            file[name] = values
        if categories:
            file["uns/g_categories"] = np.array(levels, object)
        del file["raw"]

    return change


def drop(*names: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for name in names:
            del file[name]

    return change


def attribute(node: str, key: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[node].attrs[key]
        file[node].attrs[key] = value

    return change


_INDICES = ("X/indices", "layers/twice/indices")
_POINTERS = ("X/indptr", "layers/twice/indptr")
_VALUES = ("X/data", "layers/twice/data")
_SHAPE = (N_CELLS, N_GENES)

CASES: dict[str, Callable[[h5py.File], None]] = {
    "as anndata writes it": lambda file: None,
    "attributes of fixed length": fixed_attributes(h5py.h5t.STR_NULLPAD, b"\0", utf8=True),
    "attributes in ASCII": fixed_attributes(h5py.h5t.STR_NULLTERM, b"\0", utf8=False),
    "attributes filled with spaces": fixed_attributes(h5py.h5t.STR_SPACEPAD, b" ", utf8=False),
    "attributes in arrays of one": fixed_attributes(
        h5py.h5t.STR_NULLTERM, b"\0", utf8=True, one=True
    ),
    "lists of fixed length": fixed_lists,
    "no columns": no_columns(np.zeros(0)),
    "no columns, by no space": no_columns(h5py.Empty("f8")),
    "texts of fixed length": fixed_texts(h5py.h5t.STR_NULLPAD, b"\0"),
    "texts in ASCII": fixed_texts(h5py.h5t.STR_NULLTERM, b"\0", utf8=False),
    "texts in ASCII, no encoding": fixed_texts(
        h5py.h5t.STR_NULLTERM, b"\0", utf8=False, encoded=False
    ),
    "texts filled with spaces": fixed_texts(h5py.h5t.STR_SPACEPAD, b" "),
    "texts in ASCII of any length": ascii_texts,
    **{f"indices {t}": as_type(*_INDICES, dtype=t) for t in
       ("i1", "u1", "u2", "u4", "u8", "i8", ">i4", ">u8", "f8", "f4", ">f8")},
    **{f"indptr {t}": as_type(*_POINTERS, dtype=t) for t in
       ("i2", "u4", "u8", "i8", ">i8", "f8", ">f4")},
    **{f"values {t}": as_type(*_VALUES, dtype=t) for t in
       ("?", "i1", "u1", ">i2", "u4", "i8", "u8", "f2", ">f4", "f8", ">f8")},
    **{f"codes {t}": as_type("obs/g/codes", dtype=t) for t in ("i2", "i8", ">i4", "f8")},
    **{f"number {t}": as_type("obs/number", dtype=t) for t in
       ("i1", "u8", ">i4", ">f8", "f2", "longdouble")},
    **{f"mask {t}": as_type("obs/few/mask", dtype=t) for t in ("i1", "u1")},
    "shape of floats": attribute("X", "shape", np.array(_SHAPE, ">f8")),
    "shape of other integers": attribute("X", "shape", np.array(_SHAPE, ">u4")),
    "shape of text": attribute("X", "shape", "many"),
    "shape of three": attribute("X", "shape", np.array([60, 5, 1])),
    "shape below zero": attribute("X", "shape", np.array([-60, 5])),
    "no encoding at the root": without(*_ENCODING, where=lambda name: name == "/"),
    "no encoding of vectors": without(
        *_ENCODING, where=lambda name: name in ("/obs/number", "/obs/text", "/var/_index")
    ),
    "no encoding of dictionaries": without(
        *_ENCODING, where=lambda name: name in ("/", "/layers", "/obsm", "/uns")
    ),
    "no encoding of X": without(*_ENCODING, where=lambda name: name == "/X"),
    "no encoding anywhere": without(*_ENCODING),
    "matrices of h5sparse": old_sparse,
    "another index": renamed_index("barcodes"),
    "an index without attribute": index_without_attribute(None),
    "an index called index": index_without_attribute("index"),
    "no name for the index": without("_index", where=lambda name: name == "/obs"),
    "categories by reference": old_categories(by="reference"),
    "categories by reference, another name": old_categories(by="another name"),
    "compound, texts of fixed length": compound("fixed", categories=True),
    "compound, texts of any length": compound("any", categories=True),
    "compound, no categories": compound("fixed", categories=False),
    "no X": drop("X"),
    "no raw": drop("raw"),
    "no obs": drop("obs"),
    "no var": drop("var"),
    "no indices": drop("X/indices"),
    "no codes": drop("obs/g/codes"),
    "a column that is not there": drop("obs/number"),
    "no mask": drop("obs/few/mask"),
}  # fmt: skip


def facts(data: Any) -> dict[str, Any]:
    """All that is read: matrices, names, labels and guides, or the error instead."""
    found: dict[str, Any] = {}

    def note(name: str, get: Callable[[], Any]) -> Any:
        try:
            found[name] = get()
        except PdexGpuError as error:
            found[name] = error

    def labels(dataset: Dataset, column: str) -> list[Any]:
        labels = dataset.column(column)
        return [None if code < 0 else labels.categories[code] for code in labels.codes]

    def guides(dataset: Dataset) -> Any:
        read = read_guides(*dataset.matrix("guides"), N_CELLS, "guides")
        return read.names, [c.tolist() for c in read.cells], [c.tolist() for c in read.unknown]

    def all_of(dataset: Dataset) -> None:
        edges = [0, dataset.source.n_genes]
        note("matrix", lambda: read_back(dataset.source, edges))
        note("genes", dataset.genes.tolist)
        note("cell", lambda: dataset.cell_name(7))
        note("guides", lambda: guides(dataset))
        note("array", lambda: np.asarray(dataset.matrix("array")[0]))
        for column in COLUMNS:
            note(column, lambda: labels(dataset, column))  # noqa: B023 (called at once)

    def x() -> Any:
        with open_dataset(data, None) as dataset:
            return read_back(dataset.source, [0, dataset.source.n_genes])

    note("X", x)
    try:
        with open_dataset(data, None, MatrixChoice("twice")) as dataset:
            all_of(dataset)
    except PdexGpuError as error:
        names = ["matrix", "genes", "cell", "guides", "array", *COLUMNS]
        found |= dict.fromkeys(names, error)
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return type(one) is type(other) and np.array_equal(one, other)
    return bool(one == other)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("written")
    kinds = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}
    return {name: write(folder / f"{name}.h5ad", kind) for name, kind in kinds.items()}


@pytest.fixture(scope="module")
def before(written: dict[str, Path]) -> dict[str, Any]:
    """What is read of the file as it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = facts(str(written["csr"]))
    assert not any(isinstance(value, PdexGpuError) for value in found.values())
    return found


def check(found: dict[str, Any], truth: dict[str, Any] | None, before: dict[str, Any]) -> None:
    for name, value in found.items():
        if truth is not None and not isinstance(truth[name], PdexGpuError):
            assert same(value, truth[name]), (name, value, truth[name])
        else:  # one error, or nothing was lost
            assert isinstance(value, PdexGpuError) or same(value, before[name]), name


@pytest.mark.sampled(every=7)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_as_anndata_reads_it(case, written, before, tmp_path):
    # Of CSC what differs is the place of indices.
    for kind in ("csr", "csc") if case.startswith(("ind", "values")) else ("csr",):
        path = Path(shutil.copy(written[kind], tmp_path))
        with h5py.File(path, "r+") as file:
            CASES[case](file)
        found = facts(str(path))
        try:
            adata = ad.read_h5ad(path)
        except Exception:  # whatever it raises for what it does not read
            adata = None
        check(found, None if adata is None else facts(adata), before)


OTHERS: dict[str, Callable[[h5py.File, str], Any]] = {
    "nothing": lambda file, name: None,
    "a vector": lambda file, name: file.__setitem__(name, np.zeros(3)),
    "numbers below zero": lambda file, name: file.__setitem__(name, np.full(61, -5)),
    "a number": lambda file, name: file.__setitem__(name, 5),
    "a text": lambda file, name: file.__setitem__(name, "hello"),
    "texts": lambda file, name: file.__setitem__(name, np.array(["1"] * N_CELLS, object)),
    "a table": lambda file, name: file.__setitem__(name, np.zeros((2, 2))),
    "a group": lambda file, name: file.create_group(name),
    "no space": lambda file, name: file.__setitem__(name, h5py.Empty("f4")),
    "fields": lambda file, name: file.__setitem__(name, np.zeros(N_CELLS, "i4,f4")),
    "a link to nowhere": lambda file, name: file.__setitem__(name, h5py.SoftLink("/nowhere")),
    "another file": lambda file, name: file.__setitem__(name, h5py.ExternalLink("no.h5", "/x")),
    "references": lambda file, name: file.create_dataset(name, (N_CELLS,), dtype=h5py.ref_dtype),
    "lists": lambda file, name: file.create_dataset(name, (N_CELLS,), dtype=h5py.vlen_dtype("i4")),
    "complex numbers": lambda file, name: file.__setitem__(name, np.zeros(N_CELLS, "c16")),
    "opaque bytes": lambda file, name: file.__setitem__(name, np.zeros(N_CELLS, "V4")),
}
VALUES = [5, b"x", np.array([1, 2]), np.array([b"a", b"b"]), h5py.Empty("f4"), np.nan, "none", None]


@pytest.mark.sampled(every=4)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_in_a_file_no_other_error_comes_out(seed, written, tmp_path):
    """Something else in place of a dataset, a group or an attribute: an answer, or one error."""
    rng = np.random.default_rng(seed)
    names: list[str] = []
    with h5py.File(written["csr"]) as file:
        file.visit(names.append)
    for _ in range(30):
        path = Path(shutil.copy(written["csr"], tmp_path))
        name = names[rng.integers(len(names))]
        with h5py.File(path, "r+") as file:
            attrs = dict(file[name].attrs)
            if rng.random() < 0.4 and attrs:
                key = list(attrs)[rng.integers(len(attrs))]
                del file[name].attrs[key]
                value = VALUES[rng.integers(len(VALUES))]
                if value is not None:
                    file[name].attrs[key] = value
            else:
                del file[name]
                other = list(OTHERS)[rng.integers(len(OTHERS))]
                OTHERS[other](file, name)
                if rng.random() < 0.5 and isinstance(file.get(name), h5py.Dataset | h5py.Group):
                    file[name].attrs.update(attrs)
        facts(str(path))  # raises whatever is no PdexGpuError


CALLS: dict[str, Callable[[str], Any]] = {
    "differential_expression": lambda path: differential_expression(
        path, "g", reference="ctrl", progress=False
    ),
    "guides": lambda path: differential_expression(
        path, guides="guides", comparison="rest", progress=False
    ),
    "pseudobulk": lambda path: pseudobulk(path, ["g", "few"]),
    "calibrate": lambda path: calibrate(path, "g", reference="ctrl", progress=False),
    "estimate": lambda path: estimate(path, "g", reference="ctrl"),
}


@pytest.mark.sampled(every=3)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call", CALLS)
def test_every_call(call, tmp_path):
    """All at once: text of fixed length, float64 indices, values in the other byte order."""
    path = write(tmp_path / "screen.h5ad")
    with h5py.File(path, "r+") as file:
        for case in ("attributes of fixed length", "lists of fixed length", "texts in ASCII",
                     "indices f8", "indptr >f4", "values >f8"):  # fmt: skip
            CASES[case](file)
    found, want = CALLS[call](str(path)), CALLS[call](ad.read_h5ad(write(tmp_path / "plain.h5ad")))
    if call == "pseudobulk":
        np.testing.assert_array_equal(found.X, want.X)
        assert found.obs_names.tolist() == want.obs_names.tolist()
    elif call in ("differential_expression", "guides"):
        assert found.targets.tolist() == want.targets.tolist()
        assert_same_bits(found, want)


@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.MissingLabelWarning")
@pytest.mark.parametrize("fixed", [False, True])
def test_text_that_is_not_utf8_is_read_as_latin_1(fixed, tmp_path):
    """With a warning that names file and column; anndata raises UnicodeDecodeError."""
    path = write(tmp_path / "screen.h5ad")
    names = [b"ctrl", b"B", b"no", b"\xb5g"]
    with h5py.File(path, "r+") as file:
        attrs = dict(file["obs/g/categories"].attrs)
        del file["obs/g/categories"]
        kind = "S4" if fixed else h5py.string_dtype()
        file.create_dataset("obs/g/categories", data=np.array(names, kind))
        file["obs/g/categories"].attrs.update(attrs)
    with pytest.raises(UnicodeDecodeError):
        ad.read_h5ad(path)
    says = rf"Column 'g' of obs of {path} holds text that is not UTF-8; 1 of 4 values, such as 'µg'"
    with pytest.warns(TextEncodingWarning, match=says) as caught:
        found = differential_expression(str(path), "g", reference="ctrl", progress=False)
    assert found.targets.tolist() == ["B", "µg"]
    where = {w.filename for w in caught if w.category is TextEncodingWarning}
    assert where == {__file__}  # of the call


@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.MissingLabelWarning")
def test_names_of_columns_that_are_not_utf8(tmp_path):
    """h5py lists them as bytes, and finds them by nothing else; anndata reads no such file."""
    path = write(tmp_path / "screen.h5ad")
    name = b"gruppe_\xe4"
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        obs.id.links.create_hard(name, obs.id, b"g")
        listed = [n.encode() for n in obs.attrs["column-order"]]
        del obs["g"], obs.attrs["column-order"]
        listed = np.array([name if n == b"g" else n for n in listed], object)
        obs.attrs.create("column-order", listed, dtype=h5py.string_dtype())
    found = differential_expression(str(path), "gruppe_ä", reference="ctrl", progress=False)
    assert found.targets.tolist() == ["A", "B"]
    other = differential_expression(str(path), "text", reference="x", progress=False)
    assert other.targets.tolist() == ["yy", "z"]
    with pytest.raises(ColumnError, match="Did you mean 'gruppe_ä'"):
        differential_expression(str(path), "gruppe", reference="ctrl", progress=False)


@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.MissingLabelWarning")
@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("X/indices", 1.5, "it holds 1.5 instead of whole numbers"),
        ("X/indptr", np.nan, "it holds nan instead of whole numbers"),
        ("X/indices", np.inf, "it holds inf instead of whole numbers"),
        ("X/indices", -1.0, "has an entry in column -1"),
        ("X/indices", 5.0, "has an entry in column 5"),
    ],
)
def test_floats_that_are_no_indices(part, value, says, tmp_path):
    path = write(tmp_path / "screen.h5ad")
    with h5py.File(path, "r+") as file:
        as_type(part, dtype="f8")(file)
        values = file[part][:]
        values[3] = value
        file[part][...] = values
    with pytest.raises(FileFormatError, match=says):
        differential_expression(str(path), "g", reference="ctrl", progress=False)


@pytest.mark.parametrize("numbers", [[3], [0, 300], [-2], [0, 1, 2, 3, 4]])
def test_codes_without_a_category(numbers, tmp_path):
    path = write(tmp_path / "screen.h5ad")
    with h5py.File(path, "r+") as file:
        values = file["obs/g/codes"][:].astype("i4")
        values[: len(numbers)] = numbers
        del file["obs/g/codes"]
        file["obs/g/codes"] = values
    bad = any(not -1 <= n < 4 for n in numbers)
    if bad:
        with pytest.raises(FileFormatError, match="Column 'g' of obs is malformed: a code has no"):
            open_dataset(str(path), "g")
    else:
        open_dataset(str(path), "g").close()


@pytest.mark.parametrize("column", ["number", "few", "g"])
def test_columns_of_another_length(column, tmp_path):
    path = write(tmp_path / "screen.h5ad")
    parts = {"number": ["number"], "few": ["few/values", "few/mask"], "g": ["g/codes"]}[column]
    with h5py.File(path, "r+") as file:
        for part in parts:
            values = file[f"obs/{part}"][:-1]
            del file[f"obs/{part}"]
            file[f"obs/{part}"] = values
    with pytest.raises(FileFormatError, match=f"'{column}' of obs is malformed: it has 59 values"):
        open_dataset(str(path), column)


def test_categories_that_repeat_or_are_missing(tmp_path):
    for bad in (["A", "A"], [1.5, np.nan]):
        path = write(tmp_path / "screen.h5ad")
        with h5py.File(path, "r+") as file:
            del file["obs/g/categories"], file["obs/g/codes"]
            file["obs/g/categories"] = np.array(bad, object if bad[0] == "A" else float)
            file["obs/g/codes"] = np.zeros(N_CELLS, "i1")
        with pytest.raises(FileFormatError, match="a category is missing or repeated"):
            open_dataset(str(path), "g")


# --- zarr -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[2, 3])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zarr")
    path = tmp_path_factory.mktemp("stored") / "screen.zarr"
    with (
        warnings.catch_warnings(),
        ad.settings.override(allow_write_nullable_strings=True, zarr_write_format=request.param),
    ):
        warnings.simplefilter("ignore")
        example().write_zarr(path, convert_strings_to_categoricals=False)
    return path


def zarr_as_type(group: Any, name: str, dtype: str) -> None:
    attrs, values = dict(group[name].attrs), group[name][:]
    del group[name]
    if dtype == "S":
        values = np.array([str(v).encode() for v in values], "S12")
    made = group.create_array(name, data=values if dtype == "S" else values.astype(dtype))
    made.attrs.update(attrs)


ZARR = {
    "as anndata writes it": lambda group: None,
    "indices f8": lambda group: zarr_as_type(group, "X/indices", "f8"),
    "indices u8": lambda group: zarr_as_type(group, "X/indices", "u8"),
    "indices >i4": lambda group: zarr_as_type(group, "X/indices", ">i4"),
    "indptr f8": lambda group: zarr_as_type(group, "X/indptr", "f8"),
    "values >f8": lambda group: zarr_as_type(group, "X/data", ">f8"),
    "codes >i2": lambda group: zarr_as_type(group, "obs/g/codes", ">i2"),
    "texts of bytes": lambda group: zarr_as_type(group, "obs/text", "S"),
    "texts of fixed length": lambda group: zarr_as_type(group, "obs/text", "U8"),
    "no indices": lambda group: group.__delitem__("X/indices"),
    "no codes": lambda group: group.__delitem__("obs/g/codes"),
    "no encoding": lambda group: group["obs/number"].attrs.clear(),
}


@pytest.mark.sampled(every=7)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ZARR)
def test_zarr_as_anndata_reads_it(case, stored, before, tmp_path):
    import zarr

    path = Path(shutil.copytree(stored, tmp_path / "screen.zarr"))
    ZARR[case](zarr.open_group(path, mode="r+", use_consolidated=False))
    for name in (".zmetadata",):  # consolidated metadata of what is no more
        (path / name).unlink(missing_ok=True)
    found = facts(str(path))
    try:
        adata = ad.read_zarr(path)
    except Exception:  # whatever it raises for what it does not read
        adata = None
    if case in ("no indices", "no codes"):  # anndata takes what is not there for zeros
        adata = None
    check(found, None if adata is None else facts(adata), before)
