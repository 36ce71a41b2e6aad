"""What bad input gets: one error that names the thing, what was found and what to do."""

from __future__ import annotations

import inspect
import os
import re
import tempfile
import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from emulated import build
from emulated.backend import EmulatedCuda
from scipy import stats
from screens import SMALL
from stored_screens import BACKED, GENES, GROUPBY, LABELS, MEMORY, REFERENCE, counts, screen, stored

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.backends.cuda import sources
from pdex_gpu.stats.registry import METRICS


@pytest.fixture(autouse=True)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What there is for ``backend="auto"`` to take: as it is, unless a test asks for a device."""
    name = getattr(request, "param", "as it is")
    if name == "emulated":
        libraries = build.library("probe", sources.text("probe")).parents[1]
        monkeypatch.setenv(build.FOLDER, str(libraries))  # not the scratch folder of a test
        EmulatedCuda(shapes=SMALL).install(monkeypatch)
    return name


#: For tests of what a device might change: with one, and without.
with_and_without_a_device = pytest.mark.parametrize(
    "machine", ["as it is", pytest.param("emulated", marks=build.needs_compiler)], indirect=True
)

#: For tests that look at values: every kernel set, that of the device as ``auto`` takes it.
every_backend = pytest.mark.parametrize(
    ("machine", "backend"),
    [
        pytest.param("as it is", "cpu", id="cpu"),
        pytest.param("as it is", "numpy", id="numpy"),
        pytest.param("emulated", "auto", id="cuda-emulated", marks=build.needs_compiler),
    ],
    indirect=["machine"],
)


@pytest.fixture(autouse=True)
def nothing_left(
    machine: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    """Whatever a test does, no scratch file stays behind."""
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)
    yield
    assert list(scratch.iterdir()) == []


def run(data=None, groupby=GROUPBY, *, reference=REFERENCE, **options):
    data = screen() if data is None else data
    return pdex_gpu.differential_expression(
        data, groupby, reference=reference, progress=False, **options
    )


def refused(kind: type[Exception], *fragments: str, data=None, **options) -> str:
    """The message of the error; it must be of `kind`, end properly and hold every fragment.

    Where CUDA is taken without being asked for, the CPU must say the same.
    """
    text = message(kind, data, options)
    named = "backend" in options or "PDEX_GPU_BACKEND" in os.environ
    if not named and next(b for b in pdex_gpu.backends() if b.usable).name == "cuda":
        assert message(kind, data, {**options, "backend": "cpu"}) == text
    for fragment in fragments:
        assert fragment in text, text
    assert text.endswith(".") or " HDF5 says: " in text, text
    assert not text.startswith(("'", '"')), text  # str(KeyError) would be a repr
    return text


def message(kind: type[Exception], data, options: dict) -> str:
    with pytest.raises(kind) as caught:
        run(data, **options)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "screen.h5ad"
    screen(MEMORY["csr"](counts()), layers={"counts": counts()}).write_h5ad(path)
    return path


@pytest.fixture(params=["AnnData", "backed", "path"])
def data(request: pytest.FixtureRequest, path: Path):
    if request.param == "path":
        yield path
        return
    adata = ad.read_h5ad(path, backed="r" if request.param == "backed" else None)
    yield adata
    if request.param == "backed":
        adata.file.close()


# --- names that do not exist ----------------------------------------------------------------


@with_and_without_a_device
@pytest.mark.parametrize(
    ("metric", "close"), [("wilcoxen", "'wilcoxon'"), ("T-Test", "'t-test'"), ("mast", None)]
)
def test_unknown_metric(metric, close):
    text = refused(
        errors.OptionError,
        f"Unknown metric '{metric}'.",
        "Available (4): 'wilcoxon', 'anderson', 't-test', 'ks'.",
        metric=metric,
    )
    assert (f"Did you mean {close}?" in text) == (close is not None)


def test_unknown_column(data):
    refused(
        errors.ColumnError,
        "Unknown column of obs 'pertubation'.",
        "Did you mean 'perturbation'?",
        "Available (2): 'perturbation', 'batch'.",
        data=data,
        groupby="pertubation",
    )


@with_and_without_a_device
def test_unknown_reference(data):
    refused(
        errors.LabelError,
        "Unknown reference in column 'perturbation': 'CTL'.",
        "Did you mean 'ctl'?",
        "Available (4): 'A', 'B', 'C', 'ctl'.",
        data=data,
        reference="CTL",
    )


def test_reference_none_is_no_label(data):
    refused(errors.LabelError, "'None'", "'ctl'", data=data, reference=None)


def test_unknown_group(data):
    refused(
        errors.LabelError,
        "Unknown group in column 'perturbation': 'D'.",
        "Available (4): 'A', 'B', 'C', 'ctl'.",
        data=data,
        groups=["D"],
    )


@with_and_without_a_device
def test_some_groups_unknown_are_left_out_with_a_warning():
    with pytest.warns(errors.UnknownGroupWarning, match=r"not found in column .*: 'D', 'E'\."):
        result = run(groups=["D", "B", "E"])
    assert result.targets.tolist() == ["B"]


def test_unknown_layer(data):
    refused(
        errors.LayerError,
        "Unknown layer 'count'.",
        "Did you mean 'counts'?",
        "Available (1): 'counts'.",
        data=data,
        layer="count",
    )


def test_unknown_layer_where_there_is_none():
    refused(errors.LayerError, "Unknown layer 'x'.", "Available (0): none.", layer="x")


def test_the_first_20_names_are_shown_and_the_rest_counted():
    labels = [f"pert{i:02d}" for i in range(30)]
    adata = screen(np.ones((30, 2), np.float32), labels)
    text = refused(errors.LabelError, "Available (30): ", " ... and 10 more.", data=adata)
    listed = re.findall(r"'(pert\d\d)'", text.split("Available")[1])
    assert listed == labels[:20]
    adata.obs = pd.DataFrame(
        {f"column{i:02d}": adata.obs[GROUPBY] for i in range(30)}, index=adata.obs_names
    )
    text = refused(errors.ColumnError, " ... and 10 more.", data=adata)
    assert len(re.findall(r"'column\d\d'", text)) == 20


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.OptionError, ValueError),
        (errors.UnknownOptionError, ValueError),
        (errors.UnknownOptionError, TypeError),
        (errors.LabelError, ValueError),
        (errors.ColumnError, KeyError),
        (errors.LayerError, KeyError),
        (errors.DataError, ValueError),
        (errors.FileFormatError, OSError),
        (errors.UnsupportedDataError, TypeError),
        (errors.LowMemoryError, TypeError),
        (errors.BackendError, RuntimeError),
        (errors.SharedMemoryError, MemoryError),
        (errors.WorkerError, RuntimeError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_errors_are_what_callers_catch(kind, builtin):
    assert issubclass(kind, builtin)
    assert issubclass(kind, errors.PdexGpuError)
    assert str(kind('it\'s "so"')) == 'it\'s "so"'


# --- no target left -------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [[], [REFERENCE], REFERENCE, np.array([REFERENCE])], ids=repr)
def test_no_target_is_left(groups):
    refused(
        errors.LabelError,
        "No target group is left to compare with 'ctl' in column 'perturbation'",
        "'A', 'B', 'C', 'ctl'",
        "Pass other groups or another reference",
        groups=groups,
    )


def test_the_reference_is_the_only_group():
    adata = screen(labels=[REFERENCE] * len(LABELS))
    refused(errors.LabelError, "No target group is left", "found 'ctl'", data=adata)


def test_categories_without_a_cell_are_no_groups():
    adata = screen()
    adata.obs[GROUPBY] = pd.Categorical(adata.obs[GROUPBY], ["empty", "A", "B", "C", "ctl"])
    assert run(adata).targets.tolist() == ["A", "B", "C"]
    refused(errors.LabelError, "'empty'", "Available (4)", data=adata, reference="empty")
    refused(errors.LabelError, "'empty'", "Available (4)", data=adata, groups=["empty"])


# --- NaN and infinity -----------------------------------------------------------------------

BAD_CELL, BAD_GENE = 31, 5


@pytest.mark.sampled(every=11)
@every_backend
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("how", [*MEMORY, *BACKED])
def test_nonfinite_values_name_cell_and_gene(how, bad, dtype, backend, tmp_path):
    values = counts().astype(dtype)
    values[BAD_CELL, BAD_GENE] = bad
    adata = stored(how, values, tmp_path)
    texts = {
        refused(
            errors.DataError,
            f"X is {bad} in cell 'cell{BAD_CELL}' (row {BAD_CELL})",
            f"gene 'gene{BAD_GENE}' (column {BAD_GENE})",
            "remove the cell or the gene",
            data=adata,
            backend=backend,
            gene_chunk_size=chunk,
        )
        for chunk in (None, 2)
    }
    assert len(texts) == 1
    if adata.isbacked:
        adata.file.close()


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("machine", "options"),
    [
        pytest.param("emulated", {}, id="cuda-emulated", marks=build.needs_compiler),
        pytest.param("as it is", {"backend": "cpu", "engine": "threads"}, id="threads"),
        pytest.param("as it is", {"backend": "cpu", "engine": "serial"}, id="serial"),
    ],
    indirect=["machine"],
)
def test_nonfinite_values_are_refused_by_every_metric_and_engine(metric, options):
    values = counts()
    values[BAD_CELL, BAD_GENE] = np.nan
    name = f"'gene{BAD_GENE}'"
    refused(errors.DataError, name, data=screen(values), metric=metric, **options)


@with_and_without_a_device
def test_nonfinite_values_in_a_file_read_without_anndata(tmp_path):
    values = counts()
    values[BAD_CELL, BAD_GENE] = np.inf
    path = tmp_path / "screen.h5ad"
    screen(MEMORY["csr"](values)).write_h5ad(path)
    refused(errors.DataError, f"'cell{BAD_CELL}'", f"'gene{BAD_GENE}'", data=path)


@with_and_without_a_device
def test_nonfinite_values_in_a_layer_say_so():
    values = counts()
    values[BAD_CELL, BAD_GENE] = np.inf
    adata = screen(layers={"raw": values})
    run(adata)
    text = refused(errors.DataError, f"'cell{BAD_CELL}'", data=adata, layer="raw")
    assert text.startswith("layer 'raw' is inf"), text


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("how", MEMORY)
@every_backend
def test_cells_of_no_group_may_hold_anything(how, backend, tmp_path):
    adata = screen()
    left_out = np.flatnonzero(adata.obs[GROUPBY] == "C")
    values = counts()
    values[left_out[0], BAD_GENE] = np.nan
    result = run(stored(how, values, tmp_path), groups=["A", "B"], backend=backend)
    expected = run(adata, groups=["A", "B"], backend=backend)
    np.testing.assert_array_equal(result["p_value"], expected["p_value"])


# --- files and matrices ---------------------------------------------------------------------


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*none\.h5ad'\. Check"):
        run(tmp_path / "none.h5ad")


def test_a_folder(tmp_path):
    refused(errors.FileFormatError, str(tmp_path), "folder", "h5ad", data=tmp_path)


@pytest.mark.parametrize("content", [b"", b"target,gene\nA,1\n" * 99], ids=["empty", "text"])
def test_a_file_that_is_not_hdf5(tmp_path, content):
    path = tmp_path / "screen.h5ad"
    path.write_bytes(content)
    refused(
        errors.FileFormatError,
        f"{path} is not an HDF5 file ({len(content)} bytes)",
        "write_h5ad",
        data=path,
    )


@with_and_without_a_device
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_truncated_file(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(errors.FileFormatError, str(path), "truncated", "download it again", data=path)


@with_and_without_a_device
def test_a_file_damaged_inside(tmp_path):
    """It opens, but compressed values do not read back: found in the middle of a run."""
    path = tmp_path / "screen.h5ad"
    screen(MEMORY["csr"](counts())).write_h5ad(path, compression="gzip")
    with h5py.File(path) as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    refused(
        errors.FileFormatError,
        f"X/data of {path}, chunk 0 (entries 0 to ",
        "it does not decompress",
        f"from byte {chunk.byte_offset} of the file, are damaged",
        data=path,
    )


def change(path: Path, what) -> None:
    with h5py.File(path, "r+") as file:
        what(file)


def test_a_file_without_x(path):
    change(path, lambda file: file.__delitem__("X"))
    refused(errors.DataError, "X is None", "name the layer that holds them", data=path)
    run(path, layer="counts")


def test_a_backed_anndata_without_x(path):
    change(path, lambda file: file.__delitem__("X"))
    adata = ad.read_h5ad(path, backed="r")
    refused(errors.DataError, "X is None", "name the layer", data=adata)
    adata.file.close()


def test_x_of_none(tmp_path):
    adata = screen(layers={"counts": counts()})
    adata.X = None
    refused(errors.DataError, "X is None: there is no matrix to test.", data=adata)
    run(adata, layer="counts")
    path = tmp_path / "none.h5ad"
    adata.write_h5ad(path)
    refused(errors.DataError, "X is None", data=path)


@with_and_without_a_device
@pytest.mark.parametrize("opened", ["path", "backed"])
def test_an_unsupported_encoding(path, opened):
    change(path, lambda file: file["X"].attrs.__setitem__("encoding-type", "awkward-array"))
    data = path if opened == "path" else ad.read_h5ad(path, backed="r")
    refused(
        errors.UnsupportedDataError,
        "X has the encoding 'awkward-array'",
        "Supported: array, csr_matrix and csc_matrix",
        "Write the file again",
        data=data,
    )
    if opened == "backed":
        data.file.close()


def test_a_sparse_group_without_indices(path):
    change(path, lambda file: file["X"].__delitem__("indices"))
    refused(errors.FileFormatError, "X is a sparse matrix without usable indices", data=path)


def test_a_file_that_is_no_anndata(tmp_path):
    path = tmp_path / "other.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = counts()
    refused(errors.FileFormatError, str(path), "no obs with an index", data=path)


@with_and_without_a_device
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)], ids=str)
def test_an_empty_matrix(shape):
    adata = screen(np.zeros(shape, np.float32), ["ctl", "A", "B"][: shape[0]])
    refused(errors.DataError, f"{shape[0]} cells x {shape[1]} genes", "Check the f", data=adata)


@pytest.mark.parametrize("kind", ["DataFrame", "array", "None", "number"])
def test_data_of_another_kind(kind):
    data = {"DataFrame": pd.DataFrame(counts()), "array": counts(), "None": None, "number": 3}[kind]
    with pytest.raises(
        errors.UnsupportedDataError, match="AnnData objects and their collections, and h5ad files"
    ):
        pdex_gpu.differential_expression(data, GROUPBY)


def test_complex_values():
    adata = screen(layers={"c": counts().astype(complex)})
    refused(errors.UnsupportedDataError, "layer 'c' has dtype complex128", data=adata, layer="c")


# --- what is only warned about --------------------------------------------------------------


@with_and_without_a_device
def test_duplicate_gene_names_are_counted_and_named():
    names = ["a", "b", "a", "c", "a", "b", "d", "e", "f"]
    with pytest.warns(errors.DuplicateGeneWarning) as caught:
        result = run(screen(genes=names))
    (warning,) = caught
    assert str(warning.message).startswith("2 gene names occur more than once: 'a', 'b'.")
    assert warning.filename == __file__
    assert result.features.tolist() == names
    expected = run()
    np.testing.assert_array_equal(result["p_value"], expected["p_value"])


@pytest.mark.sampled(every=5)
@with_and_without_a_device
@pytest.mark.parametrize("missing", [None, np.nan, pd.NA], ids=repr)
@pytest.mark.parametrize("categorical", [False, True])
def test_missing_labels_are_left_out_and_counted(missing, categorical, tmp_path):
    full, holes = screen(), screen()
    gone = np.arange(0, len(LABELS), 7)
    column = full.obs[GROUPBY].astype(object).to_numpy().copy()
    column[gone] = missing
    holes.obs[GROUPBY] = pd.Categorical(column) if categorical else column
    with pytest.warns(errors.MissingLabelWarning) as caught:
        result = run(holes)
    assert str(caught[0].message) == (
        f"{len(gone)} of {len(LABELS)} cells have no label in 'perturbation' and are left out."
    )
    assert caught[0].filename == __file__
    keep = np.setdiff1d(np.arange(len(LABELS)), gone)
    expected = run(full[keep].copy())
    np.testing.assert_array_equal(result["p_value"], expected["p_value"])
    np.testing.assert_array_equal(result["target_mean"], expected["target_mean"])
    if categorical:
        holes.write_h5ad(tmp_path / "holes.h5ad")
        with pytest.warns(errors.MissingLabelWarning, match=f"^{len(gone)} of"):
            run(tmp_path / "holes.h5ad")


def test_no_label_at_all():
    adata = screen()
    adata.obs[GROUPBY] = pd.Categorical([None] * len(LABELS), ["ctl", "A"])
    with pytest.warns(errors.MissingLabelWarning, match=f"{len(LABELS)} of {len(LABELS)}"):
        refused(errors.LabelError, "'ctl'", "Available (0): none.", data=adata)


# --- groups of one cell, matrices of zeros --------------------------------------------------

SCIPY = {
    "wilcoxon": stats.mannwhitneyu,
    "t-test": stats.ttest_ind,
    "anderson": lambda x, y: stats.anderson_ksamp([x, y]),
}


def scipy_pair(metric: str, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Statistic and p-value; NaN and 1 where scipy cannot judge, as pdex has it."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            found = SCIPY[metric](x, y)
        except (ValueError, IndexError):  # IndexError: Anderson-Darling, one cell against one
            return np.nan, 1.0
    return float(found.statistic), 1.0 if np.isnan(found.pvalue) else float(found.pvalue)


@pytest.mark.sampled(every=5)
@every_backend
@pytest.mark.parametrize("metric", SCIPY)
@pytest.mark.parametrize("n_reference", [1, 2, 20])
def test_groups_of_one_cell(metric, n_reference, backend):
    options = {"p_values": "interpolated" if metric == "anderson" else "asymptotic"}
    labels = ["ctl"] * n_reference + ["one", "two", "two"]
    values = np.random.default_rng(4).poisson(2.0, (len(labels), 6)).astype(np.float64)
    adata = screen(values, labels)
    result = run(adata, metric=metric, backend=backend, **options)
    x = {name: values[adata.obs[GROUPBY] == name] for name in ("ctl", "one", "two")}
    expected = np.array(
        [[scipy_pair(metric, x[t][:, g], x["ctl"][:, g]) for g in range(6)] for t in ("one", "two")]
    )
    np.testing.assert_allclose(result["statistic"], expected[..., 0], rtol=1e-10)
    np.testing.assert_allclose(result["p_value"], expected[..., 1], rtol=1e-9)
    if metric != "wilcoxon" and n_reference == 1:  # one cell against one: nothing to judge
        assert np.isnan(result["statistic"][0]).all()
        assert (result["p_value"][0] == 1.0).all()


@with_and_without_a_device
@pytest.mark.parametrize(
    ("metric", "option"), [("anderson", {"variant": "right"}), ("t-test", {"trim": 0.1})]
)
def test_one_cell_against_one_through_scipy(metric, option):
    """What scipy cannot judge is no reason to give up on all other pairs."""
    if "variant" in option and "variant" not in inspect.signature(stats.anderson_ksamp).parameters:
        pytest.skip("this scipy has no variant")
    values = np.random.default_rng(4).exponential(size=(4, 3))
    result = run(screen(values, ["ctl", "one", "two", "two"]), metric=metric, **option)
    assert np.isnan(result["statistic"][0]).all()
    assert (result["p_value"][0] == 1.0).all()
    assert result["p_value"].shape == (2, 3)
    assert np.isfinite(result["p_value"]).all()


@every_backend
def test_welch_cannot_judge_one_cell(backend):
    result = run(
        screen(counts(), ["one", *LABELS[1:]]),
        metric="t-test", groups=["one"], equal_var=False, backend=backend,
    )  # fmt: skip
    assert np.isnan(result["statistic"]).all()
    assert (result["p_value"] == 1.0).all()
    assert (result["fdr"] == 1.0).all()


@pytest.mark.sampled(every=5)
@every_backend
@pytest.mark.parametrize("how", MEMORY)
@pytest.mark.parametrize("metric", METRICS)
def test_all_zero_matrices(metric, how, backend, tmp_path):
    result = run(stored(how, np.zeros_like(counts()), tmp_path), metric=metric, backend=backend)
    assert (result["p_value"] == 1.0).all()
    assert (result["fdr"] == 1.0).all()
    for name in ("target_mean", "reference_mean"):
        assert (result[name] == 0.0).all()
    assert (result["fold_change"] == 1.0).all()
    assert np.isnan(result["percent_change"]).all()
    if metric == "wilcoxon":  # every cell ties: U is half of its range
        half = np.array([14, 12, 5])[:, None] * 24 / 2
        np.testing.assert_array_equal(result["statistic"], np.broadcast_to(half, (3, len(GENES))))
    elif metric == "ks":  # the distributions are one
        assert (result["statistic"] == 0.0).all()
    else:
        assert np.isnan(result["statistic"]).all()


# --- backends, engines, options -------------------------------------------------------------


@with_and_without_a_device
@pytest.mark.parametrize("name", ["gpu", "CPU"])
def test_unknown_backend(name):
    refused(
        errors.OptionError,
        f"Unknown backend '{name}'.",
        "Available (4): 'auto', 'cuda', 'cpu', 'numpy'.",
        backend=name,
    )


@pytest.mark.parametrize("name", ["thread", "ray"])
def test_unknown_engine(name):
    text = refused(
        errors.OptionError,
        f"'{name}'",
        "'threads', 'shared_memory', 'serial'",
        engine=name,
        backend="cpu",
    )
    assert ("Did you mean 'threads'?" in text) == (name == "thread")


@pytest.mark.parametrize(
    ("name", "value"),
    [("backend", None), ("backend", ["cpu"]), ("engine", 3), ("metric", None), ("layer", 1)],
)
def test_names_are_text(name, value):
    found = type(value).__name__
    refused(errors.OptionError, f"{name}={value!r} must be text, not {found}.", **{name: value})


@pytest.mark.parametrize("value", ["no", 1, None])
def test_exp_post_agg_is_a_truth_value(value):
    text = f"exp_post_agg={value!r} must be True or False."
    refused(errors.OptionError, text, exp_post_agg=value)


@pytest.mark.parametrize(
    ("name", "value"), [("groups", 5), ("groups", [["A"]]), ("reference", [["ctl"]])]
)
def test_labels_that_cannot_be_labels(name, value):
    refused(errors.OptionError, f"{name}=", "must be labels of the column", **{name: value})


def test_exact_distribution_out_of_reach():
    from pdex_gpu.stats.two_sample.wilcoxon import Wilcoxon

    n = np.full((1, 1), 2000.0)
    with pytest.raises(errors.OptionError, match="too long for groups of 2000 and 2000 cells"):
        Wilcoxon(method="exact").finish(np.zeros((1, 1), np.int64), np.zeros((1, 1)), n, n)


def test_cuda_by_name_says_why_not(monkeypatch):
    (cuda,) = (b for b in pdex_gpu.backends() if b.name == "cuda")
    if cuda.usable:
        pytest.skip("CUDA is usable here")
    text = refused(errors.BackendError, "backend='cuda' was requested", backend="cuda")
    assert cuda.reason in text
    monkeypatch.setenv("PDEX_GPU_BACKEND", "cuda")
    refused(errors.BackendError, "PDEX_GPU_BACKEND=cuda was requested", cuda.reason)


@with_and_without_a_device
def test_unknown_backend_in_the_environment(monkeypatch):
    monkeypatch.setenv("PDEX_GPU_BACKEND", "gpu")
    refused(errors.OptionError, "'gpu'", "'cpu'")


@pytest.mark.parametrize(
    ("metric", "option", "value", "fragments"),
    [
        ("wilcoxon", "alternative", "both", ["alternative", "'both'", "'two-sided'", "'less'"]),
        ("t-test", "alternative", "both", ["alternative", "'both'", "'two-sided'", "'greater'"]),
        ("wilcoxon", "method", "x", ["method", "'x'", "'auto'", "'asymptotic'", "'exact'"]),
        ("wilcoxon", "use_continuity", "no", ["use_continuity", "'no'", "'True'", "'False'"]),
        ("t-test", "equal_var", "no", ["equal_var", "'no'", "'True'", "'False'"]),
        ("t-test", "trim", 0.7, ["trim", "0.7", "scipy", "t-test"]),
        ("t-test", "nan_policy", "drop", ["nan_policy", "drop", "omit"]),
        ("wilcoxon", "nan_policy", "drop", ["nan_policy", "drop", "omit"]),
        ("anderson", "variant", "left", ["variant", "left"]),
        ("anderson", "method", "exact", ["method", "exact"]),
    ],
)  # fmt: skip
def test_a_bad_value_of_a_test_option(metric, option, value, fragments):
    with pytest.raises(errors.OptionError) as caught:
        run(metric=metric, **{option: value})
    for fragment in fragments:
        assert fragment in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("metric", "option"),
    [("wilcoxon", "equal_var"), ("t-test", "use_continuity"), ("anderson", "alternative"),
     ("wilcoxon", "alternativ")],
)  # fmt: skip
def test_an_unknown_test_option(metric, option):
    refused(
        errors.OptionError,
        f"metric '{metric}' has no option '{option}'.",
        "Its options are ",
        "and in scipy's names ",
        metric=metric,
        **{option: True},
    )


@pytest.mark.parametrize("name", ["n_workers", "n_threads", "gene_chunk_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, "2", True, np.nan], ids=repr)
def test_bad_counts(name, value):
    refused(errors.OptionError, f"{name}={value!r} must be a whole number", **{name: value})


@with_and_without_a_device
@pytest.mark.parametrize("name", ["n_workers", "n_threads", "gene_chunk_size"])
def test_numpy_counts_are_counts(name):
    run(**{name: np.int64(2)})


@pytest.mark.parametrize("value", ["much", "4 GX", "", 0, -1, -0.5, 0.0, np.nan, np.inf, True, []],
                         ids=repr)  # fmt: skip
def test_bad_memory(value):
    refused(errors.OptionError, f"memory={value!r} is not a size", "'4GB'", memory=value)


@pytest.mark.parametrize("value", [0, -1, 0.0, np.nan, "20", []], ids=repr)
def test_bad_clip_value(value):
    refused(errors.OptionError, f"clip_value={value!r} must be", clip_value=value)


@pytest.mark.parametrize("value", ["yes", 2, np.nan], ids=repr)
def test_bad_is_log1p(value):
    refused(errors.OptionError, f"is_log1p={value!r} must be", is_log1p=value)


def test_options_are_checked_before_the_data_are_touched():
    """A typo must not cost the minutes it takes to open a large file."""
    for bad in (
        {"metric": "x"}, {"backend": "x"}, {"engine": "x"}, {"n_threads": 0}, {"memory": "x"},
        {"clip_value": 0}, {"alternative": "x"},
    ):  # fmt: skip
        with pytest.raises(errors.OptionError):
            run("/there/is/no/such.h5ad", **bad)


# --- nothing half-written -------------------------------------------------------------------


@with_and_without_a_device
def test_an_error_in_the_last_range_leaves_no_scratch_file(tmp_path, monkeypatch):
    """A CSR file larger than the budget goes through a scratch file; see `nothing_left`."""
    values = counts()
    values[BAD_CELL, -1] = np.nan
    path = tmp_path / "screen.h5ad"
    screen(MEMORY["csr"](values)).write_h5ad(path)
    made = []
    real = tempfile.TemporaryFile

    def recorded(**options):
        file = real(**options)
        if str(options.get("dir")) == tempfile.gettempdir():  # numba makes some too
            made.append(file)
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", recorded)
    refused(errors.DataError, "'gene8'", data=path, memory=200)
    assert made
    assert all(scratch.closed for scratch in made)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["screen.h5ad"]


@with_and_without_a_device
def test_the_file_is_closed_after_an_error(path):
    refused(errors.LabelError, "'x'", data=path, reference="x")
    refused(errors.LayerError, "'x'", data=path, layer="x")
    with h5py.File(path, "r+"):  # refused while a reader has it open
        pass
