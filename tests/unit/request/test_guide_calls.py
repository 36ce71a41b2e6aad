"""Labels from the guides of cells: which cells get which, and what is said of the others."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pdex_gpu.design.labels import no_labels
from pdex_gpu.design.options import GUIDE_CALLS, ComparisonOptions
from pdex_gpu.errors import (
    ColumnError,
    DataError,
    FileFormatError,
    LabelError,
    MissingFileError,
    MissingLabelWarning,
    OptionError,
    TextEncodingWarning,
)
from pdex_gpu.request.guide_calls import with_guide_calls
from pdex_gpu.sources.dataset import Dataset, GuideCounts
from pdex_gpu.sources.memory.open import from_array

CELLS = [f"CELL{i}-1" for i in range(6)]
HEAD = "cell_barcode,num_features,feature_call,num_umis\n"
CALLS = HEAD + (
    "CELL0-1,1,nt_1,9\n"
    "CELL1-1,1,a_1,8\n"
    "CELL2-1,2,a_1|a_2,7|3\n"
    "CELL3-1,2,a_2|b_1,6|5\n"
    "CELL4-1,1,b_1,4\n"
)
TARGETS = """\
id,name,read,pattern,sequence,feature_type,target_gene_id,target_gene_name
nt_1,nt_1,R2,(BC),ACGT,CRISPR Guide Capture,Non-Targeting,Non-Targeting
a_1,a_1,R2,(BC),ACGA,CRISPR Guide Capture,ENSG1,GENEA
a_2,a_2,R2,(BC),ACGC,CRISPR Guide Capture,ENSG1,GENEA
b_1,b_1,R2,(BC),ACGG,CRISPR Guide Capture,ENSG2,GENEB
CD4,CD4,R2,(BC),ACTT,Antibody Capture,,
"""


def data(names: list[str] | None = None, counts: GuideCounts | None = None) -> Dataset:
    cells = CELLS if names is None else names
    return Dataset(
        source=from_array(np.ones((len(cells), 2)), what="X"),
        labels=no_labels(len(cells)),
        genes=np.array(["g", "h"], object),
        cell_name=cells.__getitem__,
        description="a screen",
        guide_counts=None if counts is None else lambda: counts,
    )


def files(
    folder: Path, calls: str | bytes = CALLS, targets: str | None = TARGETS
) -> dict[str, Any]:
    path = folder / "calls.csv"
    path.write_bytes(calls if isinstance(calls, bytes) else calls.encode())
    found = {"guide_calls": path}
    if targets is not None:
        found["guide_targets"] = folder / "targets.csv"
        found["guide_targets"].write_text(targets, encoding="utf-8")
    return found


def labels(dataset: Dataset) -> list[str | None]:
    codes, names = dataset.labels.codes.tolist(), dataset.labels.categories
    return [None if code < 0 else names[code] for code in codes]


def labelled(dataset: Dataset, **options: Any) -> list[str | None]:
    return labels(with_guide_calls(dataset, ComparisonOptions(**options)))


def left_out(none: int, several: int, of: str = "guides of several targets") -> Any:
    says = rf"{none + several} of \d cells are left out: {none} have no guide, and {several} have "
    return pytest.warns(MissingLabelWarning, match=says + of + r"\. With multiplicity='high'")


def test_targets_of_guides(tmp_path):
    with left_out(1, 1):
        found = labelled(data(), **files(tmp_path))
    assert found == ["non-targeting", "GENEA", "GENEA", None, "GENEB", None]


def test_without_targets_guides_are_labels(tmp_path):
    with left_out(1, 2, "several guides"):
        found = labelled(data(), **files(tmp_path, targets=None))
    assert found == ["nt_1", "a_1", None, None, "b_1", None]


def test_min_umis_leaves_out_faint_calls(tmp_path):
    given = files(tmp_path)
    with left_out(2, 0):
        found = labelled(data(), **given, min_umis=6)
    assert found == ["non-targeting", "GENEA", "GENEA", "GENEA", None, None]
    with pytest.raises(LabelError, match=r"No cell has a guide .*at least min_umis=10 UMIs"):
        labelled(data(), **given, min_umis=10)


def test_high_multiplicity_is_a_matrix(tmp_path):
    options = ComparisonOptions(**files(tmp_path), multiplicity="high")
    found = with_guide_calls(data(), options)
    matrix, names = found.matrix(GUIDE_CALLS)
    assert names == ["GENEA", "GENEB", "non-targeting"]
    assert matrix.dtype == bool
    want = [[0, 0, 1], [1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(matrix.toarray(), want)
    with pytest.raises(ColumnError, match="'other'"):
        found.matrix("other")


COUNTS = GuideCounts(
    np.array(["nt_1", "a_1", "a_2", "b_1"], object),
    np.array(["nt_1", "a_1", "a_2", "b_1"], object),
    np.array([0, 1, 2, 2, 3, 3, 4, 4, 5]),
    np.array([0, 1, 1, 2, 2, 3, 3, 3, 0]),
    np.array([9, 8, 7, 6, 6, 5, 2, 3, 1], np.int32),
    "x.h5",
)


def test_guides_that_the_data_count(tmp_path):
    targets = files(tmp_path)["guide_targets"]
    with left_out(1, 1):  # the UMIs of one pair are in two entries
        found = labelled(data(counts=COUNTS), min_umis=5, guide_targets=targets)
    assert found == ["non-targeting", "GENEA", "GENEA", None, "GENEB", None]
    with left_out(0, 2, "several guides"):
        found = labelled(data(counts=COUNTS), min_umis=1)
    assert found == ["nt_1", "a_1", None, None, "b_1", "nt_1"]
    with pytest.raises(LabelError, match=r"No cell has a guide in x\.h5 .*min_umis=99"):
        labelled(data(counts=COUNTS), min_umis=99)


def test_data_that_count_no_guides():
    for dataset in (data(), data(counts=GuideCounts(*[np.empty(0, int)] * 5, "x.h5"))):
        with pytest.raises(DataError, match="a screen has no features of the type 'CRISPR Guide"):
            labelled(dataset, min_umis=3)


# --- barcodes ------------------------------------------------------------------------------------

OTHER = CALLS.replace("CELL", "OTHER")


@pytest.mark.parametrize(
    ("calls", "names", "says"),
    [
        (OTHER, CELLS, r"0 of the 5 barcodes of .*calls\.csv are cells of the data: it has "
         r"'OTHER0-1', .*and the data have 'CELL0-1', 'CELL1-1', 'CELL2-1'\.$"),
        (CALLS.replace("-1,", ","), CELLS, r"Without its suffix, 5 more would be found, the usual "
         r"cause\. The names of the cells end in a suffix such as '-1', which the barcodes"),
        (CALLS, [name[:-2] for name in CELLS], r"The barcodes of the table end in a suffix such as "
         r"'-1', which the names of the cells lack: .*adata\.obs_names \+ '-1'"),
        (CALLS.replace("-1,", "-2,"), CELLS, r"5 more would be found.* another suffix, such as "
         r"'-1', than the barcodes of the table"),
        (CALLS, [f"{name}-0" for name in CELLS], r"end in a suffix such as '-0', which the barc"),
    ],
    ids=["none", "cells have it", "table has it", "different ones", "of concatenation"],
)  # fmt: skip
def test_no_barcode_is_a_cell(calls, names, says, tmp_path):
    with pytest.raises(DataError, match=says):
        labelled(data(names), **files(tmp_path, calls))


def test_some_barcodes_are_no_cells(tmp_path):
    with left_out(0, 1), pytest.warns(MissingLabelWarning, match=(
        r"4 of the 5 barcodes of .* are cells of the data; the others, such as 'CELL4-1', are not "
        r"used\.$"
    )):  # fmt: skip
        found = labelled(data(CELLS[:4]), **files(tmp_path))
    assert found == ["non-targeting", "GENEA", "GENEA", None]
    names = [*CELLS[:4], "CELL4"]
    with (
        left_out(1, 1),
        pytest.warns(
            MissingLabelWarning, match=r"'CELL4-1', are not used\. Without its suffix, 1 more would"
        ),
    ):
        labelled(data(names), **files(tmp_path))


def test_a_few_barcodes_may_be_alike_by_chance(tmp_path):
    calls = CALLS + "CELL0-2,1,a_1,9\nOTHER-2,1,a_1,9\nMORE-2,1,a_1,9\n"
    with left_out(1, 1), pytest.warns(MissingLabelWarning, match=r"'MORE-2', are not used\.$"):
        labelled(data(), **files(tmp_path, calls))


def test_names_of_cells_that_repeat(tmp_path):
    says = "1 cells have the same name as others, so guide_calls= cannot tell"
    with pytest.raises(DataError, match=says):
        labelled(data([*CELLS[:5], "CELL1-1"]), **files(tmp_path))
    with left_out(2, 1):  # of cells that no barcode names, nothing is asked
        labelled(data([*CELLS[:5], "x", "x"]), **files(tmp_path))


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "calls",
    [
        CALLS.replace("\n", "\r\n"),
        "\ufeff" + CALLS,
        CALLS.replace("a_1,8", '"a_1","8"'),
        CALLS + "\n\n",
        gzip.compress(CALLS.encode()),
        CALLS.replace("|", " | "),
        CALLS.replace("cell_barcode", " Cell_Barcode "),
        CALLS + "CELL5-1,0,,\n",
        CALLS + "CELL5-1,0,None,0\n",
        CALLS + "CELL1-1,1,a_1,8\n",
    ],
    ids=[
        "Windows", "byte order mark", "quoted", "blank lines", "gzip", "spaces", "header",
        "no call", "None", "repeated",
    ],
)  # fmt: skip
def test_tables_as_people_have_them(calls, tmp_path):
    with left_out(1, 1):
        found = labelled(data(), **files(tmp_path, calls))
    assert found == ["non-targeting", "GENEA", "GENEA", None, "GENEB", None]


def test_a_table_separated_by_tabs(tmp_path):
    given = files(tmp_path)
    given["guide_calls"] = tmp_path / "calls.tsv"
    given["guide_calls"].write_text(CALLS.replace(",", "\t"), encoding="utf-8")
    with left_out(1, 1):
        labelled(data(), **given)


MALFORMED: dict[str, tuple[str | bytes, str | None, dict[str, Any], type[Exception], str]] = {
    "empty": ("", None, {}, FileFormatError, "calls .* is empty. It needs the columns 'cell_bar"),
    "blank": ("\n\n", None, {}, FileFormatError, "is empty"),
    "header alone": (HEAD, None, {}, LabelError, "has no calls: it ends after its header"),
    "other columns": (
        "a,b\n1,2\n", None, {}, FileFormatError,
        "no column 'cell_barcode', 'feature_call'; its first line has 'a', 'b'",
    ),
    "no UMIs": (
        "cell_barcode,feature_call\nCELL0-1,a\n", None, {"min_umis": 2}, FileFormatError,
        "no column 'num_umis'",
    ),
    "short": (CALLS + "CELL5-1\n", None, {}, FileFormatError, "line 7 has 1 columns"),
    "long field": (
        CALLS + "A" * 200_000 + ",1,a,1\n", None, {}, FileFormatError, "not a table, line 7",
    ),
    "UMIs are text": (
        CALLS.replace(",8\n", ",x\n"), None, {"min_umis": 2}, FileFormatError,
        "line 3 has 1 calls, but num_umis is 'x' instead of 1 whole numbers",
    ),
    "too few UMIs": (
        CALLS.replace("7|3", "7"), None, {"min_umis": 2}, FileFormatError,
        "line 4 has 2 calls, but num_umis is '7' instead of 2",
    ),
    "negative UMIs": (
        CALLS.replace(",8\n", ",-8\n"), None, {"min_umis": 2}, FileFormatError, "num_umis is '-8'",
    ),
    "cut": (gzip.compress(CALLS.encode())[:-20], None, {}, FileFormatError, "truncated or damaged"),
    "a guide without target": (
        CALLS, TARGETS.replace("b_1,b_1", "b_9,b_9"), {}, LabelError,
        r"no target for 1 of the 4 guides in .*calls\.csv: 'b_1'",
    ),
    "an empty target": (
        CALLS, TARGETS.replace("GENEB", ""), {}, LabelError, "The target_gene_name of 1 guides",
    ),
    "two targets": (
        CALLS, TARGETS + "a_1,a_1,R2,(BC),A,CRISPR Guide Capture,X,OTHER\n", {}, FileFormatError,
        "line 7 gives the guide 'a_1' the target 'OTHER', but an earlier line 'GENEA'",
    ),
    "no column of targets": (
        CALLS, "id,name\na_1,a_1\n", {}, FileFormatError, "no column 'target_gene_name'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", MALFORMED)
def test_malformed_tables(how, tmp_path):
    calls, targets, options, kind, says = MALFORMED[how]
    with pytest.raises(kind, match=says):
        labelled(data(), **files(tmp_path, calls, targets), **options)


def test_tables_that_are_not_there(tmp_path):
    with pytest.raises(MissingFileError, match=r"guide calls .* does not exist"):
        labelled(data(), guide_calls=tmp_path / "none.csv")
    with pytest.raises(FileFormatError, match="is a folder, but a file is needed"):
        labelled(data(), guide_calls=tmp_path)
    given = files(tmp_path) | {"guide_targets": tmp_path / "none.csv"}
    with pytest.raises(MissingFileError, match=r"guide targets .* does not exist"):
        labelled(data(), **given)


def test_guides_that_are_not_utf8(tmp_path):
    calls = CALLS.replace("nt_1", "µ").encode("latin-1")
    with (
        left_out(1, 2, "several guides"),
        pytest.warns(TextEncodingWarning, match="1 of 6 values"),
    ):
        found = labelled(data(), **files(tmp_path, calls, None))
    assert found[0] == "µ"


def test_targets_by_name_and_by_other_spellings(tmp_path):
    targets = TARGETS.replace("a_1,a_1", "ID7,a_1").replace("g,Non-Targeting", "g,NON_TARGETING")
    targets = targets.replace("\n", "\r\n")
    with left_out(1, 1):
        found = labelled(data(), **files(tmp_path, targets=targets))
    assert found == ["non-targeting", "GENEA", "GENEA", None, "GENEB", None]


def test_a_name_of_two_guides_identifies_neither(tmp_path):
    targets = TARGETS.replace("a_1,a_1", "ID7,a_1").replace("b_1,b_1", "b_1,a_1")
    with pytest.raises(LabelError, match=r"or their names are not unique: 'a_1'"):
        labelled(data(), **files(tmp_path, targets=targets))


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"guide_calls": "c.csv", "groupby": "g"}, "guide_calls='c.csv' and groupby='g' both"),
        ({"min_umis": 3, "groupby": "g"}, "min_umis='3' and groupby='g' both"),
        ({"guide_calls": "c.csv", "guides": "g"}, "guides='g' and guide_calls= both say"),
        ({"groupby": "g", "guide_targets": "t.csv"}, "guide_targets='t.csv' needs the guide"),
        ({"groupby": "g", "multiplicity": "high"}, "multiplicity='high' needs the guide"),
        ({"min_umis": 0}, "min_umis=0 must be a whole number of at least 1"),
        ({"min_umis": True}, "min_umis=True"),
        ({"min_umis": 2, "multiplicity": "both"}, "Unknown multiplicity 'both'"),
        ({"guide_calls": 3}, "guide_calls=3 must be a path"),
        ({"guide_calls": ""}, "guide_calls='' is empty"),
        ({"guide_calls": "c", "guide_targets": []}, r"guide_targets=\[\] must be a path"),
        ({"min_umis": 2, "multiplicity": "high", "on_target": "g"}, "on_target= maps the groups"),
    ],
)
def test_options_that_make_no_sense(options, says):
    with pytest.raises(OptionError, match=says):
        ComparisonOptions(**options)
