"""Results read from text, as written and as edited by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stored_screens import GROUPBY, REFERENCE, logged, screen

import pdex_gpu
from pdex_gpu import DEResult, errors
from pdex_gpu.results.schema import VALUES


def run(**options: object) -> DEResult:
    return pdex_gpu.differential_expression(
        screen(logged()), GROUPBY, reference=REFERENCE, progress=False, **options
    )


def same(found: DEResult, expected: DEResult) -> None:
    for name in ("targets", "references", "features"):
        assert getattr(found, name).tolist() == list(map(str, getattr(expected, name))), name
    assert found.columns == expected.columns
    np.testing.assert_array_equal(found.kept, expected.kept)
    assert (found.within is None) == (expected.within is None)
    for name in found.columns:
        values = [result[name] for result in (found, expected)]
        if found.kept is not None:
            values = [np.where(found.kept, one, 0) for one in values]
        np.testing.assert_array_equal(*values, name, strict=True)


def lines_of(result: DEResult, path: Path) -> list[str]:
    result.to_csv(path)
    return path.read_text().splitlines()


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("options", [{}, {"columns": "all"}], ids=str)
def test_what_was_written_is_read(tmp_path: Path, suffix: str, options: dict[str, object]) -> None:
    result = run(**options)
    path = tmp_path / f"r{suffix}"
    result.to_csv(path, **({} if suffix == ".csv" else {"sep": "\t"}))
    found = pdex_gpu.open_result(path)
    assert isinstance(found, DEResult)
    assert found.provenance == {}
    same(found, result)


def test_levels_and_awkward_names(tmp_path: Path) -> None:
    levels = np.empty(2, object)
    levels[:] = [("T, cell", "1"), ('B "x"', "2")]
    columns = {name: np.arange(6.0).reshape(2, 3) for name in VALUES}
    columns["p_value"][1, 1], columns["fold_change"][0, 2] = np.nan, np.inf
    features = np.array(["g\nh", "NA", ""], object)
    result = DEResult(
        np.array(["A", "A"], object), np.array(["nan", "c"], object), features, columns, {},
        within=(("cell", "batch"), levels),
    )  # fmt: skip
    result.to_csv(tmp_path / "r.csv")
    found = pdex_gpu.open_result(tmp_path / "r.csv")
    same(found, result)
    assert found.within[0] == ("cell", "batch")
    assert found.within[1].tolist() == levels.tolist()


def rows_of(result: DEResult) -> pd.DataFrame:
    labels = ["target", "reference", "feature"]
    frame = result.to_pandas().astype(dict.fromkeys(labels, str))
    return frame.sort_values(labels, ignore_index=True)


def test_a_filtered_result(tmp_path: Path) -> None:
    result = run(min_fraction=0.45)
    result.to_csv(tmp_path / "r.csv")
    found = pdex_gpu.open_result(tmp_path / "r.csv")
    assert 0 < found.n_rows < len(result.targets) * len(result.features)
    pd.testing.assert_frame_equal(rows_of(found), rows_of(result))


def test_rows_may_be_sorted_and_removed(tmp_path: Path) -> None:
    result = run()
    header, *rows = lines_of(result, tmp_path / "r.csv")
    removed, order = rows[4], np.random.default_rng(1).permutation(len(rows))
    kept = [rows[i] for i in order if rows[i] != removed]
    (tmp_path / "r.csv").write_text("\n".join([header, *kept]) + "\n")
    found = pdex_gpu.open_result(tmp_path / "r.csv")
    assert found.n_rows == result.n_rows - 1
    assert found.targets[0] == kept[0].split(",")[0]
    target, _, feature = removed.split(",")[:3]
    whole = rows_of(result)
    there = (whole["target"] != target) | (whole["feature"] != feature)
    pd.testing.assert_frame_equal(rows_of(found), whole[there].reset_index(drop=True))


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    result = run()
    lines = lines_of(result, tmp_path / "r.csv")
    (tmp_path / "r.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    same(pdex_gpu.open_result(tmp_path / "r.csv"), result)


def test_genes_whose_names_repeat(tmp_path: Path) -> None:
    result = run()
    result.features[3] = result.features[1]
    result.to_csv(tmp_path / "r.csv")
    with pytest.warns(errors.DuplicateGeneWarning, match="several rows of one gene"):
        found = pdex_gpu.open_result(tmp_path / "r.csv")
    same(found, result)


def replaced(line: str, k: int, text: str) -> str:
    fields = line.split(",")
    fields[k] = text
    return ",".join(fields)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda h, r: [h, *r, r[0]], "twice, the second time in row 28"),
        (lambda h, r: [h.replace("fdr", "FDR"), *r], "lacks the columns 'fdr'"),
        (lambda h, r: [h, replaced(r[0], 3, "n/a?"), *r[1:]], "not of the kind .*n/a"),
        (lambda h, r: [h, r[0] + ",5", *r[1:]], "different lengths"),
        (lambda h, r: [h + ",note", *(x + ",ok" for x in r)], "not known here: 'note'"),
        (lambda h, r: [h + ",fdr", *(x + ",1" for x in r)], "columns twice: 'fdr'"),
        (lambda h, r: [h, replaced(r[0], 10, ""), *r[1:]], "empty fields in column 'target_n_c"),
        (lambda h, r: [h.replace(",", ";"), *r], "must be separated by ',', not ';'"),
        (lambda h, r: [], "lacks the columns 'target'"),
        (lambda h, r: [h + "\0\xff"], "lacks|not known"),
    ],
)
def test_edited_by_hand(tmp_path: Path, edit, message: str) -> None:
    path = tmp_path / "r.csv"
    header, *rows = lines_of(run(), path)
    path.write_text("\n".join(edit(header, rows)))
    with pytest.raises(errors.FileFormatError, match=message) as caught:
        pdex_gpu.open_result(path)
    assert str(caught.value).startswith(repr(str(path)))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00t", "target,é".encode("latin-1")])
def test_bytes_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    said = re.escape(f"{str(path)!r} cannot be read: it is not text in UTF-8.")
    with pytest.raises(errors.FileFormatError, match=said):
        pdex_gpu.open_result(path)


def test_a_gene_has_one_symbol(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    header, *rows = lines_of(run(), path)
    header = header.replace("feature", "feature,symbol")
    genes = [row.split(",")[2] for row in rows]
    rows = [replaced(row, 2, f"{g},S{g}") for row, g in zip(rows, genes, strict=True)]
    path.write_text("\n".join([header, *rows]))
    found = pdex_gpu.open_result(path)
    assert found.symbols.tolist() == [f"S{gene}" for gene in found.features]
    gene = found.features[1]
    path.write_text("\n".join([header, *rows]).replace(f",S{gene},", ",other,", 1))
    with pytest.raises(errors.FileFormatError, match=f"several symbols of gene '{gene}'.* row 2"):
        pdex_gpu.open_result(path)


def test_rows_of_many_comparisons_do_not_fill_the_memory(tmp_path: Path, monkeypatch) -> None:
    """A column of remarks next to reference makes a comparison of every row."""
    path = tmp_path / "r.csv"
    header, *rows = lines_of(run(), path)
    noted = [replaced(row, 1, f"{REFERENCE},n{k}") for k, row in enumerate(rows)]
    path.write_text("\n".join([header.replace("reference,", "reference,note,", 1), *noted]))
    monkeypatch.setattr("pdex_gpu.results.text_file.available_memory", lambda: 19_000)
    with pytest.raises(errors.MemoryBudgetError, match=r"27 comparisons and 9 genes.*'note'"):
        pdex_gpu.open_result(path)


def test_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(lines_of(run(), path)[0] + "\n")
    found = pdex_gpu.open_result(path)
    assert (len(found.targets), len(found.features), found.n_rows) == (0, 0, 0)
