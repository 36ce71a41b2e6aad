"""Commands that read results: ``top``, ``plot`` and ``report``; and files that are none."""

from __future__ import annotations

import json
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pdex_gpu
from pdex_gpu import pl
from pdex_gpu.cli import main
from pdex_gpu.cli.commands import plot as plot_command
from pdex_gpu.cli.commands.top import p_value_text
from pdex_gpu.results.memory import DEResult
from pdex_gpu.results.schema import VALUES
from pdex_gpu.results.table import LAYOUT_KEY
from pdex_gpu.simulate import GROUPBY, simulate_screen
from pdex_gpu.utils.exit_codes import Exit

NASTY = '[red]a[/red], "b" <script> \U0001f9ec'


def labels(*names: object) -> np.ndarray:
    found = np.full(len(names), None)
    found[:] = names
    return found


def result_of(columns: dict, targets, references, features, **more) -> DEResult:
    shape = (len(targets), len(features))
    full = {name: np.broadcast_to(columns.get(name, 1.0), shape).astype(float) for name in VALUES}
    for name in set(columns) - set(VALUES):
        full[name] = np.broadcast_to(columns[name], shape).astype(float)
    return DEResult(
        labels(*targets), labels(*references), labels(*features), full, {"metric": "wilcoxon"},
        **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    simulate_screen(400, 60, 5, mean_umi=300, seed=1).write_h5ad(folder / "screen.h5ad")
    pdex_gpu.differential_expression(
        str(folder / "screen.h5ad"), GROUPBY, out=folder / "de.parquet", progress=False
    )
    return folder / "de.parquet"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Two genes with odd names, compared with two references in several levels."""
    path = tmp_path / "odd.parquet"
    result_of(
        {"p_value": [[0.0, 0.5]] * 3 + [[0.5, 0.25]],
         "fdr": [[0.0, np.nan]], "log10_p": [[-400.25, -0.3]],
         "statistic": np.nan},
        ["A", "A", "B", "A"],
        ["NT", "CTRL", "NT", "NT"],
        [NASTY, "x" * 200],
        within=("cell", labels("T", "T", "B\n", "U")),
    ).to_parquet(path)  # fmt: skip
    return path


# top


def test_genes_that_share_a_symbol_are_told_apart(tmp_path: Path, capsys) -> None:
    result_of(
        {"p_value": [[0.1, 0.2, 0.3]]}, ["A"], ["NT"], ["g0", "g1", "g2"],
        symbols=labels("S", "S", "T"),
    ).to_parquet(tmp_path / "r.parquet")  # fmt: skip
    assert main(["top", str(tmp_path / "r.parquet"), "A"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[-3:]] == ["S (g0)", "S (g1)", "T"]


def test_top_is_what_the_library_says(results: Path, capsys):
    result = pdex_gpu.open_result(results)
    target = str(result.targets[1])
    assert main(["top", str(results), target, "-n", "4"]) == Exit.OK
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    top = result.top(target, 4)
    sizes = top.loc[0, ["target_n_cells", "reference_n_cells"]]
    assert lines[0] == (
        f"{target} ({sizes.iloc[0]} cells) against non-targeting ({sizes.iloc[1]} cells), wilcoxon"
    )
    assert [line.split()[0] for line in lines[3:]] == top["feature"].tolist()
    names = ["log2_fold_change", "p_value", "fdr", "target_mean", "reference_mean"]
    shown = [[float(text) for text in line.split()[1:]] for line in lines[3:]]
    # Two or three digits after the point, or three in all.
    np.testing.assert_allclose(shown, top[names], rtol=5e-3, atol=5.1e-3)


def test_top_of_text_names_no_test(results: Path, tmp_path: Path, capsys):
    result = pdex_gpu.open_result(results)
    result.load().to_csv(tmp_path / "de.csv")
    target = str(result.targets[1])
    assert main(["top", str(tmp_path / "de.csv"), target, "-n", "1"]) == Exit.OK
    of_text = capsys.readouterr().out.splitlines()
    assert main(["top", str(results), target, "-n", "1"]) == Exit.OK
    first, *rest = capsys.readouterr().out.splitlines()
    assert of_text == [first.removesuffix(", wilcoxon"), *rest]


def test_top_as_json(odd: Path, capsys):
    argv = ["top", str(odd), "A", "--reference", "NT", "--within", "T", "--json"]
    assert main(argv) == Exit.OK
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert {k: document[k] for k in ("target", "reference", "within", "metric")} == {
        "target": "A", "reference": "NT", "within": "T", "metric": "wilcoxon"
    }  # fmt: skip
    first, second = document["rows"]
    assert first["feature"] == NASTY
    assert first["log10_p"] == -400.25
    assert first["statistic"] is None
    assert second["fdr"] is None
    assert second["cell"] == "T"
    argv[argv.index("T")] = "U"
    assert main(argv) == Exit.OK
    document = json.loads(capsys.readouterr().out)
    assert document["within"] == "U"
    assert [row["p_value"] for row in document["rows"]] == [0.25, 0.5]


def test_names_are_shown_as_they_are(odd: Path, capsys):
    assert main(["top", str(odd), "B"]) == Exit.OK
    out = capsys.readouterr().out
    assert out.startswith("B against NT in B\\n, wilcoxon\n")
    assert NASTY in out
    assert "x" * 200 in out
    assert "5.62e-401" in out
    assert "nan" not in out


def test_top_is_quiet(odd: Path, capsys):
    assert main(["top", str(odd), "B", "-q"]) == Exit.OK
    assert capsys.readouterr() == ("", "")


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("said", [True, None])
def test_top_shows_differences_where_there_are_no_ratios(said: bool | None, tmp_path: Path, capsys):
    path = tmp_path / "negative.parquet"
    values = {name: np.full((1, 2), np.nan) for name in VALUES} | {
        "target_mean": np.array([[-1.5, 0.5]]), "reference_mean": np.array([[-0.25, -0.25]]),
        "p_value": np.array([[1e-3, 1e-3]]), "fdr": np.array([[1e-3, 1e-3]]),
    }  # fmt: skip
    result = result_of(values, ["A"], ["NT"], ["x", "y"])
    if said is not None:
        result.provenance["negative_values"] = said
    result.to_parquet(path)
    assert main(["top", str(path), "A"]) == Exit.OK
    out = capsys.readouterr().out
    assert "mean difference" in out
    assert "fold change" not in out
    rows = [line.split() for line in out.splitlines()[3:]]
    assert [row[:2] for row in rows] == [["x", "-1.25"], ["y", "0.75"]]
    assert main(["top", str(path), "A", "--json"]) == Exit.OK
    document = json.loads(capsys.readouterr().out)
    assert document["effect"] == "mean_difference"
    assert [row["mean_difference"] for row in document["rows"]] == [-1.25, 0.75]
    for kind, target in (
        ("volcano", ["--target", "A"]),
        ("heatmap", []),
        ("ma", ["--target", "A"]),
    ):
        figure = tmp_path / f"{kind}.svg"
        assert main(["plot", kind, str(path), *target, "-o", str(figure)]) == Exit.OK


@pytest.mark.parametrize(
    ("p_value", "log10_p", "text"),
    [
        (0.05, None, "5.00e-02"),
        (0.0, None, "0.00e+00"),
        (0.0, -400.25, "5.62e-401"),
        (1e-300, -300.0, "1.00e-300"),
        (float("nan"), None, "-"),
    ],
)
def test_p_value_text(p_value: float, log10_p: float | None, text: str):
    assert p_value_text(p_value, log10_p) == text


def test_nothing_left(tmp_path: Path, capsys):
    path = tmp_path / "empty.parquet"
    kept = np.array([[False, False], [True, False]])
    result_of({}, ["A", "B"], ["NT", "NT"], ["x", "y"], kept=kept).to_parquet(path)
    assert main(["top", str(path), "A"]) == Exit.OK
    assert "No genes are left" in capsys.readouterr().out
    assert main(["top", str(path), "A", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["rows"] == []


def test_nan_everywhere(tmp_path: Path, capsys):
    path = tmp_path / "nan.parquet"
    result_of(dict.fromkeys(VALUES, np.nan), ["A"], ["NT"], ["x", "y"]).to_parquet(path)
    assert main(["top", str(path), "A"]) == Exit.OK
    out = capsys.readouterr().out
    assert "nan" not in out
    assert [line.split()[1:] for line in out.splitlines()[3:]] == [["-"] * 5] * 2
    assert main(["top", str(path), "A", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["rows"][0]["p_value"] is None


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["C"], "Unknown target 'C'"),
        (["A"], "was compared 3 times"),
        (["A", "--reference", "CTR"], "'CTRL'"),
        (["B", "--within", "T"], "Unknown within"),
    ],
)
def test_no_such_comparison(odd: Path, capsys, argv: list[str], says: str):
    assert main(["top", str(odd), *argv]) == Exit.INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "Traceback" not in err


# Files that are no results, in every command that reads some


def not_parquet(path: Path) -> None:
    path.write_text("target,feature\n")


def of_another(path: Path) -> None:
    pq.write_table(pa.table({"target": ["A"], "p_value": [0.5]}), path)


def newer(path: Path) -> None:
    table = pq.read_table(path)
    layout = json.loads(table.schema.metadata[LAYOUT_KEY])
    layout["schema"] += 1
    changed = {**table.schema.metadata, LAYOUT_KEY: json.dumps(layout).encode()}
    pq.write_table(table.replace_schema_metadata(changed), path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (not_parquet, Exit.INPUT, "is not a Parquet file"),
        (of_another, Exit.INPUT, "was not written by pdex_gpu"),
        (newer, Exit.INPUT, "run git pull, then pip install ."),
        (truncated, Exit.INPUT, "is not a Parquet file, or it is damaged"),
        (lambda path: path.unlink(), Exit.INPUT, "does not exist"),
        (lambda path: (path.unlink(), path.mkdir()), Exit.USAGE, "is a folder"),
        (lambda path: path.rename(path.with_suffix(".csv")), Exit.INPUT, "does not exist"),
    ],
    ids=["text", "another", "newer", "truncated", "missing", "folder", "renamed"],
)
@pytest.mark.parametrize("command", ["top", "plot", "report"])
def test_no_results(
    results: Path, tmp_path: Path, capsys, monkeypatch, command: str, spoil, code: Exit, says: str
):
    fake_report(monkeypatch)
    path = tmp_path / "de.parquet"
    shutil.copy(results, path)
    spoil(path)
    before = sorted(p.name for p in tmp_path.iterdir())
    argv = {
        "top": ["top", str(path), "A"],
        "plot": ["plot", "hits", str(path), "-o", str(tmp_path / "x.png")],
        "report": ["report", str(path), "-o", str(tmp_path / "x.html")],
    }[command]
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.startswith("pdex-gpu: error: ")
    assert err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert main([*argv, "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["code"] == code
    assert says in document["error"]["message"]


# plot


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_figure_of_each_format(results: Path, tmp_path: Path, capsys, suffix: str):
    out = tmp_path / f"hits{suffix.upper()}"
    assert main(["plot", "hits", str(results), "-o", str(out)]) == Exit.OK
    assert capsys.readouterr() == ("", "")
    begins = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert out.read_bytes().startswith(begins)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("kind", plot_command.KINDS)
def test_every_kind_draws(results: Path, tmp_path: Path, capsys, kind: str):
    import matplotlib.pyplot as plt

    out = tmp_path / "figure.png"
    target = str(pdex_gpu.open_result(results).targets[0])
    named = ["--target", target] if plot_command.KINDS[kind].needs_target else []
    assert main(["plot", kind, str(results), *named, "-o", str(out), "--json"]) == Exit.OK
    document = json.loads(capsys.readouterr().out)
    assert document["output"] == str(out)
    assert document["kind"] == kind
    assert out.read_bytes().startswith(b"\x89PNG")
    assert plt.get_fignums() == []


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("argv", "function", "args", "keywords"),
    [
        (["volcano", "--target", "A"], "volcano", ["A"], {}),
        (
            ["volcano", "--target", "A", "--reference", "NT", "--within", "T", "--fdr", "0.1",
             "--labels", "0"],
            "volcano",
            ["A"],
            {"reference": "NT", "within": "T", "fdr": 0.1, "n_labels": 0},
        ),
        (["ma", "--target", "A", "--labels", "3"], "ma", ["A"], {"n_labels": 3}),
        (
            ["volcano", "--target", "A", "--feature", "x", "--feature", "y",
             "--min-log2-fold-change", "1", "--color", "up=red", "--color", "down=#0000ff"],
            "volcano",
            ["A"],
            {"genes": ["x", "y"], "min_log2_fold_change": 1.0,
             "colors": {"up": "red", "down": "#0000ff"}},
        ),
        (["heatmap", "--best-per", "3"], "heatmap", [], {"best_per": 3}),
        (
            ["dotplot", "--target", "A", "--feature", "x", "--fdr", "0.1"],
            "dotplot",
            [],
            {"targets": ["A"], "features": ["x"], "fdr": 0.1},
        ),
        (["dotplot", "-n", "9"], "dotplot", [], {"n_features": 9}),
        (["overlap", "-n", "5"], "overlap", [], {"n_targets": 5}),
        (["overlap", "--target", "A", "--target", "B"], "overlap", [], {"targets": ["A", "B"]}),
        (["p-values"], "p_values", [], {}),
        (["p-values", "--target", "A", "--within", "T"], "p_values", ["A"], {"within": "T"}),
        (["hits", "--fdr", "0.2", "-n", "7"], "hits", [], {"fdr": 0.2, "n": 7}),
        (
            ["heatmap", "--target", "A,B", "--feature", "x", "-n", "5"],
            "heatmap",
            [],
            {"targets": ["A", "B"], "features": ["x"], "n_features": 5},
        ),
        (["on-target", "--fdr", "0.2"], "on_target", [], {"fdr": 0.2}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_options_reach_the_figure(
    odd: Path, tmp_path: Path, monkeypatch, argv: list[str], function: str, args, keywords
):
    import matplotlib.pyplot as plt

    calls = []

    def draw(result: object, *args: object, **keywords: object) -> object:
        calls.append((result.path, list(args), keywords))
        return plt.subplots()[1]

    monkeypatch.setattr(pl, function, draw)
    kind, *rest = argv
    out = tmp_path / "figure.svg"
    assert main(["plot", kind, str(odd), *rest, "-o", str(out)]) == Exit.OK
    assert calls == [(odd, args, keywords)]
    assert out.exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["vulcano", "r.parquet", "-o", "x.png"], "Did you mean 'volcano'?"),
        (["volcano", "r.parquet", "-o", "x.png"], "--target NAME"),
        (
            ["volcano", "r.parquet", "--target", "A", "--target", "B", "-o", "x.png"],
            "names several",
        ),
        (["hits", "r.parquet", "--target", "A", "-o", "x.png"], "--target is not valid for hits"),
        (["hits", "r.parquet", "--feature", "A", "-o", "x.png"], "it is only for volcano, ma"),
        (
            ["hits", "r.parquet", "--best-per", "2", "-o", "x.png"],
            "--best-per is not valid for hits",
        ),
        (
            ["volcano", "r.parquet", "--target", "A", "--color", "red", "-o", "x.png"],
            "pass PART=COLOR",
        ),
        (
            ["ma", "r.parquet", "--target", "A", "--min-log2-fold-change", "-1", "-o", "x.png"],
            "'-1' is below 0",
        ),
        (
            ["volcano", "r.parquet", "--target", "A", "-n", "3", "-o", "x.png"],
            "-n is not valid for volcano",
        ),
        (["hits", "r.parquet", "-o", "x.jpg"], "Unknown output format '.jpg'"),
        (["hits", "r.parquet", "-o", "old.png"], "already exists. Add --force"),
        (["hits", "r.parquet", "-o", "folder.png"], "is a folder"),
        (["hits", "r.parquet", "-o", "no/x.png"], "'no' does not exist"),
        (["hits", "r.parquet", "--fdr", "1.5", "-o", "x.png"], "between 0 and 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_plot_mistakes(tmp_path: Path, monkeypatch, capsys, argv: list[str], says: str):
    """All of them before the results are read: there are none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.png").write_text("precious")
    (tmp_path / "folder.png").mkdir()
    assert main(["plot", *argv]) == Exit.USAGE
    assert says in capsys.readouterr().err
    assert (tmp_path / "old.png").read_text() == "precious"


def test_a_figure_is_whole_or_not_there(odd: Path, tmp_path: Path, monkeypatch, capsys):
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    def half(figure: Figure, path: Path, **_: object) -> None:
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    out = tmp_path / "old.png"
    out.write_text("precious")
    monkeypatch.setattr(Figure, "savefig", half)
    assert main(["plot", "hits", str(odd), "-o", str(out), "--force"]) == Exit.DISK
    assert "is full" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["odd.parquet", "old.png"]
    assert plt.get_fignums() == []


def test_no_matplotlib(odd: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", "hits", str(odd), "-o", str(tmp_path / "x.png")]) == Exit.BACKEND
    assert "pip install matplotlib textalloc" in capsys.readouterr().err


# report


def fake_report(monkeypatch) -> list:
    """In place of the module that writes the page."""
    calls: list = []

    def write_report(result: object, path: Path, **keywords: object) -> Path:
        calls.append((result, path, keywords))
        path.write_text("<html>")
        return path

    module = types.ModuleType("pdex_gpu.report")
    module.write_report = write_report  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pdex_gpu.report", module)
    return calls


def test_report(odd: Path, tmp_path: Path, monkeypatch, capsys):
    calls = fake_report(monkeypatch)
    out = tmp_path / "report.html"
    assert main(["report", str(odd), "-o", str(out)]) == Exit.OK
    argv = ["report", str(odd), "--calibration", "c.json", "--title", NASTY, "--fdr", "0.1"]
    assert main([*argv, "--force", "-o", str(out), "--json"]) == Exit.OK
    (plain, path, usual), (_, _, special) = calls
    assert (plain.path, path) == (odd, out)
    assert usual == {"calibration": None, "title": None, "fdr": 0.05, "force": False}
    assert special == {"calibration": Path("c.json"), "title": NASTY, "fdr": 0.1, "force": True}
    shown, err = capsys.readouterr()
    assert err == ""
    document = json.loads(shown)
    assert document["output"] == str(out)
    assert document["n_bytes"] == len("<html>")


@pytest.mark.parametrize(
    ("name", "says"),
    [("old.html", "already exists. Add --force"), ("x.pdf", "Unknown output format '.pdf'")],
)
def test_report_mistakes(odd: Path, tmp_path: Path, monkeypatch, capsys, name: str, says: str):
    calls = fake_report(monkeypatch)
    (tmp_path / "old.html").write_text("precious")
    assert main(["report", str(odd), "-o", str(tmp_path / name)]) == Exit.USAGE
    assert re.search(re.escape(says), capsys.readouterr().err)
    assert calls == []
    assert (tmp_path / "old.html").read_text() == "precious"
