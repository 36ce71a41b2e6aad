"""Matrix folders of Cell Ranger: the same as its HDF5 files, and what is wrong with text."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cell_ranger_files import (
    BARCODES,
    IDS,
    N_CELLS,
    N_GENES,
    NAMES,
    barcodes_text,
    counts,
    features_text,
    matrix_text,
    write_folder,
)
from source_reads import read_back

from pdex_gpu.errors import (
    ColumnError,
    DataError,
    FileFormatError,
    MemoryBudgetError,
    MissingFileError,
    TextEncodingWarning,
    UnsupportedDataError,
)
from pdex_gpu.sources.cell_ranger import mtx
from pdex_gpu.sources.cell_ranger.folder import MatrixFolder
from pdex_gpu.sources.choice import MatrixChoice, X
from pdex_gpu.sources.dataset import Dataset
from pdex_gpu.sources.formats import code_for, shared_path
from pdex_gpu.sources.open import open_dataset
from pdex_gpu.sources.sizes import SPARE, within

GENES = ["A", "B", "A-1", "C", "D", "E", "F"]
LINES = matrix_text().splitlines(keepends=True)
HEAD, ENTRIES = LINES[:3], LINES[3:]
TEXT = "".join(LINES)


def opened(path: Any, choice: MatrixChoice = X) -> Dataset:
    return open_dataset(path, None, choice)


def read(folder: Path, n_genes: int = N_GENES) -> np.ndarray:
    with opened(folder) as dataset:
        return read_back(dataset.source.canonical(), [0, n_genes])


def test_a_folder(tmp_path):
    folder = write_folder(tmp_path / "m")
    assert isinstance(code_for(folder), MatrixFolder)
    assert shared_path(folder) == str(folder)
    with opened(folder) as dataset:
        assert dataset.genes.tolist() == GENES
        assert dataset.all_cell_names().tolist() == BARCODES.tolist()
        assert dataset.cell_name(2) == BARCODES[2]
        assert dataset.source.dtype == np.int32
        assert dataset.guide_counts is not None
        guides = dataset.guide_counts()
        values = read_back(dataset.source, [0, 3, N_GENES])
    np.testing.assert_array_equal(values, counts()[:, :N_GENES].toarray())
    assert guides.ids.tolist() == IDS[N_GENES:].tolist()
    assert guides.cells.tolist() == list(range(N_CELLS))
    assert guides.guides.tolist() == [i % 4 for i in range(N_CELLS)]
    assert guides.umis.tolist() == [5 + i % 3 for i in range(N_CELLS)]


def test_version_2_names_genes_and_compresses_nothing(tmp_path):
    genes = "".join(f"{i}\t{n}\n" for i, n in zip(IDS[:N_GENES], NAMES[:N_GENES], strict=True))
    folder = write_folder(
        tmp_path / "m",
        matrix_mtx=None, features_tsv=None, barcodes_tsv=None,
        matrix_mtx_plain=matrix_text(counts()[:, :N_GENES]), genes_tsv_plain=genes,
        barcodes_tsv_plain=barcodes_text(),
    )  # fmt: skip
    with opened(folder) as dataset:
        assert dataset.genes.tolist() == GENES
    np.testing.assert_array_equal(read(folder), counts()[:, :N_GENES].toarray())


def test_a_matrix_whose_prefix_its_files_share(tmp_path):
    folder = write_folder(tmp_path / "m")
    for name in os.listdir(folder):
        (folder / name).rename(folder / f"GSM1_{name}")
    with pytest.raises(FileFormatError, match=r"a folder but not .*a matrix folder of Cell Ranger"):
        opened(folder)
    with opened(folder / "GSM1_matrix.mtx.gz") as dataset:
        assert dataset.genes.tolist() == GENES


@pytest.mark.parametrize("at_once", [40, 1000, 1 << 24])
@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        "\ufeff" + TEXT,
        TEXT[:-1],
        "".join(HEAD) + "\n" + "\n\n".join(ENTRIES) + "\n\n",
        "".join(HEAD + sorted(ENTRIES)),
        "".join(HEAD + ENTRIES[::-1]),
        TEXT.replace("%metadata_json: {}\n", ""),
        TEXT.replace("coordinate", "Coordinate"),
        TEXT.replace("integer", "real"),
    ],
    ids=[
        "as it is", "Windows", "byte order mark", "no last line end", "blank lines", "sorted",
        "reversed", "no comment", "capitals", "real",
    ],
)  # fmt: skip
def test_text_as_people_write_it(text, at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(mtx, "_AT_ONCE", at_once)
    monkeypatch.setattr(mtx, "_BUFFER", 32 if at_once < 1000 else 1 << 20)
    folder = write_folder(tmp_path / "m", matrix_mtx=text)
    np.testing.assert_array_equal(read(folder), counts()[:, :N_GENES].toarray())


def test_what_is_named_gz_need_not_be_compressed(tmp_path):
    folder = write_folder(
        tmp_path / "m", matrix_mtx=TEXT.encode(),
        features_tsv=b"\xef\xbb\xbf" + features_text().replace("\n", "\r\n").encode(),
    )  # fmt: skip
    np.testing.assert_array_equal(read(folder), counts()[:, :N_GENES].toarray())
    with opened(folder) as dataset:
        assert dataset.genes.tolist() == GENES


def test_values_of_every_kind(tmp_path):
    half = write_folder(tmp_path / "half", matrix_mtx=matrix_text(counts() * 0.1, "real"))
    np.testing.assert_array_equal(read(half), (counts() * 0.1)[:, :N_GENES].toarray())
    large = [*HEAD[:2], "11 60 2\n", "1 1 5000000000\n", "2 60 7\n"]
    values = read(write_folder(tmp_path / "large", matrix_mtx="".join(large)))
    assert values.dtype == np.int64
    assert (values[0, 0], values[59, 1], values.sum()) == (5_000_000_000, 7, 5_000_000_007)
    text = "%%MatrixMarket matrix coordinate pattern general\n11 60 2\n1 1\n3 2\n"
    values = read(write_folder(tmp_path / "pattern", matrix_mtx=text))
    assert (values[0, 0], values[1, 2], values.sum()) == (1, 1, 2)


def test_repeated_entries_are_added_up(tmp_path):
    text = "%%MatrixMarket matrix coordinate integer general\n11 60 3\n1 1 4\n3 2 2\n1 1 5\n"
    values = read(write_folder(tmp_path / "m", matrix_mtx=text))
    assert (values[0, 0], values[1, 2], values.sum()) == (9, 2, 11)


CUT = gzip.compress(TEXT.encode(), mtime=0)
DAMAGED = bytearray(CUT)
DAMAGED[-6] ^= 1

MALFORMED: dict[str, tuple[dict[str, str | bytes | None], type[Exception], str]] = {
    "cut": ({"matrix_mtx": CUT[:-300]}, FileFormatError, r"declares 343 entries, but it holds \d"),
    "cut in its header": ({"matrix_mtx": CUT[:15]}, FileFormatError, "is truncated or damaged"),
    "wrong checksum": ({"matrix_mtx": bytes(DAMAGED)}, FileFormatError, "CRC check failed"),
    "fewer entries": (
        {"matrix_mtx": "".join(LINES[:-5])}, FileFormatError, "343 entries, but it holds 338",
    ),
    "more entries": (
        {"matrix_mtx": TEXT + ENTRIES[0]}, FileFormatError, "343 entries, but it holds more",
    ),
    "half a line": (
        {"matrix_mtx": TEXT[:-3]},
        FileFormatError, "entry 343 does not hold a feature, a cell, a number",
    ),
    "text": (
        {"matrix_mtx": "".join([*HEAD, "1 x 5\n", *ENTRIES[1:]])},
        FileFormatError, "entry 1 does not hold a feature, a cell, a number",
    ),
    "a fourth number": (
        {"matrix_mtx": "".join([*HEAD, *ENTRIES[:2], "1 1 5 6\n", *ENTRIES[3:]])},
        FileFormatError, "entry 3 does not hold",
    ),
    "too large": (
        {"matrix_mtx": "".join([*HEAD, f"1 1 {1 << 63}\n", *ENTRIES[1:]])},
        FileFormatError, "entry 1 has a number beyond 64 bits",
    ),
    "row too large": (
        {"matrix_mtx": "".join([*HEAD, f"{1 << 64} 1 1\n", *ENTRIES[1:]])},
        FileFormatError, "entry 1 is outside",
    ),
    "text in place of a real": (
        {"matrix_mtx": TEXT.replace("integer", "real").replace(ENTRIES[4], "1 1 1.5x\n")},
        FileFormatError, "entry 5 does not hold",
    ),
    "empty": ({"matrix_mtx": ""}, FileFormatError, "does not begin with %%MatrixMarket"),
    "junk": ({"matrix_mtx": "hello"}, FileFormatError, "does not begin with %%MatrixMarket"),
    "array": (
        {"matrix_mtx": "%%MatrixMarket matrix array real general\n1 1\n1\n"},
        UnsupportedDataError, "of the kind 'array real general'",
    ),
    "no kind": ({"matrix_mtx": "%%MatrixMarket matrix\n"}, UnsupportedDataError, "of the kind"),
    "no size": ({"matrix_mtx": LINES[0]}, FileFormatError, "the line with its size is ''"),
    "size is text": (
        {"matrix_mtx": LINES[0] + "a b c\n"}, FileFormatError, "its size is 'a b c'",
    ),
    "negative": ({"matrix_mtx": LINES[0] + "-1 5 3\n"}, FileFormatError, "its size is -1 x 5"),
    "too many": (
        {"matrix_mtx": LINES[0] + "11 60 99999999999\n1 1 1\n"},
        FileFormatError, "declares 99,999,999,999 entries, but the file has",
    ),
    "fractions": (
        {"matrix_mtx": "".join([*HEAD, "1 1 5.5\n", *ENTRIES[1:]])},
        DataError, "declares whole numbers, but entry 1 has a fraction",
    ),
    "out of range": (
        {"matrix_mtx": "".join([*HEAD, "12 1 5\n", *ENTRIES[1:]])},
        FileFormatError, "entry 1 is outside its 11 features x 60 cells",
    ),
    "null": (
        {"matrix_mtx": "".join([*HEAD, ENTRIES[0], "\0 1 5\n", *ENTRIES[2:]])},
        FileFormatError, "entry 2 does not hold",
    ),
    "transposed": (
        {"matrix_mtx": matrix_text(counts().T.tocsr())}, FileFormatError, "cells x features",
    ),
    "other features": (
        {"features_tsv": features_text() + "x\ty\tz\n"},
        FileFormatError,
        r"features\.tsv\.gz' has 12 features, but the matrix '.*matrix\.mtx\.gz' is 11 features x "
        "60 cells. It may belong to another run",
    ),
    "other barcodes": (
        {"barcodes_tsv": "A\nB\n"},
        FileFormatError, r"barcodes\.tsv\.gz' has 2 barcodes, but the matrix .* x 60 cells",
    ),
    "no barcodes": ({"barcodes_tsv": ""}, FileFormatError, "has 0 barcodes"),
    "empty features": ({"features_tsv": ""}, FileFormatError, "feature file .* is empty"),
    "ragged": (
        {"features_tsv": features_text() + "x\n"}, FileFormatError, "line 12 has 1 columns",
    ),
    "no feature file": (
        {"features_tsv": None}, MissingFileError, "none of 'features.tsv.gz', .*'genes.tsv'",
    ),
    "no barcode file": ({"barcodes_tsv": None}, MissingFileError, "none of 'barcodes.tsv.gz'"),
    "no genes": (
        {"features_tsv": "x\ty\tPeaks\n" * 11},
        DataError, r"no features of the type 'Gene Expression'.*'Peaks' \(11\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", MALFORMED)
def test_malformed_folders(how, tmp_path):
    files, kind, says = MALFORMED[how]
    with pytest.raises(kind, match=says):
        opened(write_folder(tmp_path / "m", **files))


def test_a_cut_matrix_says_how_many_entries_there_are(tmp_path):
    # Not compressible, so that the cut is where the file is cut.
    folder = write_folder(tmp_path / "m", matrix_mtx=gzip.compress(TEXT.encode(), 0)[:-400])
    n = TEXT.encode()[: -400 + 8].decode().count("\n") - len(HEAD)
    with pytest.raises(FileFormatError, match=rf"343 entries, but it holds {n}, and ends there"):
        opened(folder)


def test_feature_names_that_are_not_utf8(tmp_path):
    text = features_text().replace("\tA\t", "\t\xb5\t").encode("latin-1")
    folder = write_folder(tmp_path / "m", features_tsv=gzip.compress(text))
    with pytest.warns(TextEncodingWarning, match="2 of 11"), opened(folder) as dataset:
        assert dataset.genes[0] == "\xb5"


def test_a_line_without_end_is_refused(tmp_path):
    junk = "".join(HEAD) + "1" * (2 * mtx._LONGEST_LINE)
    with pytest.raises(FileFormatError, match="entry 1 does not hold"):
        opened(write_folder(tmp_path / "m", matrix_mtx=junk))


def test_entries_count_against_memory(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "m")
    monkeypatch.setattr(mtx, "claim", lambda n, what: claimed.append((n, what)))
    claimed: list[tuple[int, str]] = []
    opened(folder).close()
    assert claimed == [(343 * 12, "the 343 entries of the matrix, which is text,")]
    monkeypatch.undo()
    n = 2 * SPARE
    text = "".join(HEAD[:2]) + f"11 60 {n}\n"
    monkeypatch.setattr(mtx, "_MOST_PACKED", 1 << 40)
    with within(1), pytest.raises(MemoryBudgetError, match=f"the {n:,} entries of the matrix"):
        opened(write_folder(tmp_path / "large", matrix_mtx=text))


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    folder = write_folder(tmp_path / "m", features_tsv=None)
    os.mkfifo(folder / "features.tsv.gz")
    with pytest.raises(MissingFileError, match="none of"):
        opened(folder)


def test_a_column_is_refused_before_the_matrix_is_read(tmp_path):
    folder = write_folder(tmp_path / "m", matrix_mtx="junk")
    with pytest.raises(ColumnError, match="no columns such as 'gene'"):
        open_dataset(folder, "gene", X)
