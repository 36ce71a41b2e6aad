"""What a refusal names first: what was meant, the likely control, the output that was given."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stored_screens import GROUPBY, LABELS, REFERENCE, screen

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.cli import main
from pdex_gpu.utils.exit_codes import Exit


def run(data=None, **options):
    given = {"groupby": GROUPBY, "reference": REFERENCE, "backend": "numpy", "progress": False}
    data = screen() if data is None else data
    return pdex_gpu.differential_expression(data, **given | options)


def refused(call, **options) -> str:
    with pytest.raises(errors.PdexGpuError) as caught:
        call(**options)
    return str(caught.value)


# --- options by name -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"grops": ["A"]}, "Unknown option 'grops'. Did you mean 'groups'"),
        ({"referense": "A"}, "Did you mean 'reference'"),
        ({"n_thread": 2}, "Did you mean 'n_threads'"),
        ({"Columns": "all"}, "Did you mean 'columns'?"),
        ({"tie_corection": True}, "Did you mean 'tie_correction'"),
        ({"use_continuty": True}, "Did you mean 'use_continuity' or 'continuity'?"),
        ({"variance": "welch"}, "Option 'variance' belongs to metric='t-test'."),
        ({"p_values": "exact"}, "Unknown value for p_values: 'exact'"),
        ({"p_values": "interpolated"}, "Available (2): 'conditional', 'asymptotic'"),
        ({"p_values": "conditional", "continuity": False}, "belongs to asymptotic p-values"),
        ({"p_values": "conditional", "method": "exact"}, "belongs to asymptotic p-values"),
        (
            {"metric": "t-test", "p_values": "conditional", "variance": "welch"},
            "variance='welch' (scipy: equal_var=) belongs to asymptotic p-values",
        ),
        ({"varience": "welch"}, "Did you mean 'variance' (of metric='t-test')"),
        (
            {"metric": "t-test", "continuity": True},
            "Option 'continuity' belongs to metric='wilcoxon'.",
        ),
        (
            {"metric": "ks", "zzzzz": 1},
            "Unknown option 'zzzzz'. metric 'ks' has no option 'zzzzz'.",
        ),
    ],
    ids=str,
)
def test_a_mistyped_option_of_a_comparison(options, says):
    assert says in refused(run, **options)


def test_a_mistyped_option_of_the_other_calls():
    adata = screen()
    calibrate = refused(pdex_gpu.calibrate, data=adata, groupby=GROUPBY, n_repeat=3)
    assert "Did you mean 'n_repeats'?" in calibrate
    estimate = refused(pdex_gpu.estimate, data=adata, groupby=GROUPBY, denstiy=0.1)
    assert "Did you mean 'density'?" in estimate
    drop_in = refused(
        pdex_gpu.parallel_differential_expression,
        adata=adata, groupby_key=GROUPBY, reference=REFERENCE, num_treads=2,
    )  # fmt: skip
    assert "Did you mean 'num_threads'" in drop_in
    with pytest.warns(UserWarning, match=r"ignored\): cpm_filtr\. Did you mean 'cpm_filter'\?"):
        pdex_gpu.pdex(
            adata, GROUPBY, reference=REFERENCE, cpm_filtr=1.0, is_log1p=False, as_pandas=True,
            backend="numpy",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "s.h5ad", "--grops", "A"], "--groups"),
        (["estimate", "s.h5ad", "--force"], "'report' and 'calibrate' have it."),
        (["run", "s.h5ad", "--dask-workers", "3"], "'estimate' has it."),
        (["run", "s.h5ad", "--n-workers", "3"], "--workers"),
    ],
)
def test_a_mistyped_option_of_a_command(words, says, capsys):
    assert main(words) == Exit.USAGE
    assert says in capsys.readouterr().err


# --- labels ----------------------------------------------------------------------------------


def many(controls: str = "non-targeting", n: int = 60) -> object:
    labels = [f"gene{i:02}" for i in range(n) for _ in range(1 + (i == 7) * 5)]
    return screen(np.ones((len(labels) + 9, 3), np.float32), labels + [controls] * 9)


@pytest.mark.parametrize("asked", ["NT", "ctrl", "nontargeting", "x", None])
def test_an_unknown_reference_among_many_labels(asked):
    text = refused(run, data=many(), reference=asked)
    assert "Likely controls: 'non-targeting' (9 cells)." in text
    assert "Largest groups: 'non-targeting' (9 cells), 'gene07' (6 cells), 'gene00' (1" in text
    assert ("Did you mean 'non-targeting'?" in text) == (asked == "nontargeting")
    assert text.index("Likely") < text.index("Largest") < text.index("Available (61)")


@pytest.mark.parametrize(
    "name",
    ["Non-Targeting", "non_targeting_001", "NT", "ntc-12", "sgNT_3", "Control", "CTRL2", "ctl",
     "safe-targeting", "DMSO", "dmso_24h", "scramble", "Scrambled-1", "AAVS1", "sgAAVS1", "WT",
     "wild type", "mock", "Vehicle", "untreated", "NegCtrl3", "negative_control", "no-guide",
     "NO-TARGET", "NTC1"],
)  # fmt: skip
def test_names_of_controls(name):
    assert errors.is_control(name)


@pytest.mark.parametrize("name", ["STAT1", "WT1", "NT5E", "CTCF", "MOCS1", "NEGR1", "A", "3", ""])
def test_names_of_genes(name):
    assert not errors.is_control(name)


@pytest.mark.parametrize(
    "call",
    [
        lambda adata: run(adata, reference="NT"),
        lambda adata: pdex_gpu.calibrate(adata, GROUPBY, reference="NT"),
        lambda adata: pdex_gpu.estimate(adata, GROUPBY, reference="NT", timing=False),
        lambda adata: pdex_gpu.pdex(adata, GROUPBY, reference="NT", as_pandas=True),
        lambda adata: pdex_gpu.parallel_differential_expression(adata, None, "NT", GROUPBY),
        lambda adata: pdex_gpu.rank_genes_groups(adata, GROUPBY, reference="NT"),
        lambda adata: pdex_gpu.pseudobulk_dex(
            adata, [GROUPBY, "batch"], test_col=GROUPBY, reference="NT"
        ),
    ],
)
def test_every_call_names_likely_controls(call):
    adata = screen()
    adata.obs[GROUPBY] = pd.Categorical(adata.obs[GROUPBY].replace({REFERENCE: "safe-targeting"}))
    assert "Likely controls: 'safe-targeting' (24 cells)." in refused(lambda: call(adata))


def test_unknown_groups_are_no_controls():
    text = refused(run, data=many(), reference="non-targeting", groups=["gene_07"])
    assert "Did you mean 'gene07'" in text
    assert "Likely" not in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reference": ["A", ["B"]]}, "reference=['A', ['B']] must be labels"),
        ({"groups": [["A"], "B"]}, "groups=[['A'], 'B'] must be labels"),
        ({"groups": "A", "reference": {"A": 1}}, "reference={'A': 1} must be labels"),
        ({"comparison": "pairs", "pairs": [("A", ["B"])]}, "must be rows of (target, reference)"),
        ({"comparison": "pairs", "pairs": [("A", pd.NA)]}, "must be rows of (target, reference)"),
    ],
    ids=str,
)
def test_labels_that_are_lists(options, says):
    assert says in refused(run, **options)


@pytest.mark.parametrize("kind", ["list", "dict", "array"])
def test_columns_of_lists(kind):
    adata = screen()
    made = {"list": lambda i: [i % 2], "dict": lambda i: {"a": i}, "array": lambda i: np.arange(3)}
    column = np.empty(len(LABELS), object)
    for i in range(len(column)):
        column[i] = made[kind](i)
    adata.obs["lists"] = column
    for options in ({"groupby": "lists"}, {"strata": "lists"}, {"on_target": "lists"}):
        text = refused(run, data=adata, **options)
        assert text.startswith(
            "Column 'lists' of obs holds values that cannot be used as labels, such as "
        ), text


@pytest.mark.parametrize(
    "values",
    [
        lambda n: np.arange(n) % 3 * (1 + 1j),
        lambda n: pd.date_range("2020-01-01", periods=n) - pd.to_timedelta(np.arange(n) // 3, "D"),
        lambda n: pd.period_range("2020-01", periods=3, freq="M").take(np.arange(n) % 3),
        lambda n: pd.interval_range(0, 3).take(np.arange(n) % 3),
        lambda n: pd.Categorical.from_codes(np.arange(n) % 3, pd.interval_range(0, 3)),
    ],
    ids=["complex", "datetime", "period", "interval", "categories that are intervals"],
)
def test_labels_of_odd_dtypes_are_labels(values):
    adata = screen()
    adata.obs["odd"] = values(len(LABELS))
    first = str(adata.obs["odd"].iloc[0])
    result = run(adata, groupby="odd", reference=first)
    assert str(result.reference) == first


# --- outputs ---------------------------------------------------------------------------------

_PLACES = [
    ("none/de.parquet", "none' does not exist. Create it first."),
    ("file/de.parquet", "file' is a file. Choose another."),
    ("folder.parquet", "folder.parquet' is a folder. Choose a file name."),
    ("/proc/de.parquet", "'/proc' is not writable ("),
    (f"{'x' * 300}.parquet", "has a name of 308 bytes"),
    (f"{'x' * 240}.parquet", "has a name of 248 bytes, but at most 243 are possible"),
    ("a\0.parquet", "contains a null character"),
    ("", "out='' is empty."),
    (b"de.parquet", "out=b'de.parquet' must be a path, not bytes."),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder.parquet").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("out", "says"), _PLACES, ids=lambda value: ascii(value)[:30])
def test_places_where_no_output_can_be(out, says, folder):
    assert says in refused(run, out=out)
    assert sorted(path.name for path in folder.iterdir()) == ["file", "folder.parquet"]


@pytest.mark.parametrize(
    "out", [out for out, says in _PLACES if isinstance(out, str) and out and "243" not in says]
)
@pytest.mark.parametrize("write", ["to_parquet", "to_csv", "to_json", "report"])
def test_places_where_nothing_else_can_be_written(write, out, folder):
    if write == "report":
        out = out.removesuffix(".parquet") + ".html"
        (folder / "folder.parquet").rename(folder / "folder.html")
    made = pdex_gpu.calibrate(screen(), GROUPBY, reference=REFERENCE, backend="numpy",
                              progress=False) if write == "to_json" else run()  # fmt: skip
    text = refused(lambda: getattr(made, write)(out))
    assert re.search(r"does not exist|is a folder|not writable|bytes|null character", text), text
    assert ".pdex_gpu." not in text
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("value", [3, None, ["x"], b"x"])
def test_paths_that_are_none(value):
    for call in (run().to_parquet, run().to_csv, pdex_gpu.open_result):
        assert "must be a path, not" in refused(lambda call=call: call(value))


def test_what_fails_while_it_is_written_is_named_as_it_was_given(folder, monkeypatch):
    """Not the file of the checkpoint that was being written."""

    def fail(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pdex_gpu.utils.atomic_files.sync", fail)
    text = refused(run, out=folder / "de.parquet")
    assert text.startswith(f"The checkpoint of the output '{folder / 'de.parquet'}' could not be")
    assert f"permission denied in the folder '{folder}'" in text
    assert ".tmp" not in text


@pytest.mark.parametrize(
    ("scratch", "says"),
    [("none", "does not exist"), ("file", "is a file, not a folder"), ("/proc", "not writable ("),
     ("x" * 300, "does not exist"), ("", "is empty")],
)  # fmt: skip
def test_scratch_folders(scratch, says, folder):
    assert says in refused(run, scratch=scratch)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["demo", "-o", "file"], "is a file. Pass a folder."),
        (["demo", "-o", "file/below"], "is a file. Choose another."),
        (["demo", "-o", "/proc/below"], "'/proc' is not writable ("),
        (["plot", "hits", "r.parquet", "-o", "/proc/x.png"], "'/proc' is not writable ("),
        (["plot", "hits", "r.parquet", "-o", "file/x.png"], "'file' is a file."),
        (["report", "r.parquet", "-o", "/proc/x.html"], "'/proc' is not writable ("),
        (["calibrate", "s.h5ad", "--groupby", "g", "-o", "file/x.json"], "'file' is a file."),
        (["calibrate", "s.h5ad", "--groupby", "g", "--plot", "none/x.png"], "Create it first."),
    ],
)
def test_outputs_of_commands(words, says, folder, capsys):
    assert main(words) == Exit.USAGE
    assert says in capsys.readouterr().err
    assert len(list(folder.iterdir())) == 2


# --- inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none.parquet", "x" * 300, "file/below.parquet", "a\0b"])
def test_files_that_are_not_there(name, folder):
    for call in (pdex_gpu.open_result, pdex_gpu.Calibration.from_json, run):
        text = refused(lambda call=call: call(name))
        assert re.search("does not exist|There is no file|null character", text), text


@pytest.mark.parametrize("call", [pdex_gpu.open_result, pdex_gpu.Calibration.from_json, run])
def test_files_that_may_not_be_read(call, folder, monkeypatch):
    """As root may read everything, the question is answered for it."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)
    with pytest.raises(errors.UnreadableFileError, match="permission denied"):
        call(folder / "file")
    with pytest.raises(PermissionError):
        call(folder / "file")


@pytest.mark.parametrize("options", [{"n_repeats": 10**15}, {"n_repeats": 99, "memory": 1000}])
def test_more_repeats_than_memory_can_hold(options):
    with pytest.raises(errors.MemoryBudgetError, match="Use fewer repeats, or allow more memory"):
        pdex_gpu.calibrate(
            screen(), GROUPBY, reference=REFERENCE, backend="numpy", progress=False, **options
        )
