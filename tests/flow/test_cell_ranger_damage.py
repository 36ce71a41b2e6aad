"""Text of Cell Ranger, changed at random: a table, or one clear error, and nothing else."""

from __future__ import annotations

import gzip
import random
import warnings
from collections import Counter
from pathlib import Path

import pytest
from cell_ranger_files import (
    BARCODES,
    barcodes_text,
    features_text,
    matrix_text,
    write_folder,
    write_hdf5,
)

from pdex_gpu import differential_expression
from pdex_gpu.errors import PdexGpuError

CALLS = "cell_barcode,num_features,feature_call,num_umis\n" + "".join(
    f"{name},1,g{i % 4},{5 + i % 3}\n" for i, name in enumerate(BARCODES)
)
TARGETS = "id,name,feature_type,target_gene_name\n" + "".join(
    f"g{i},n{i},CRISPR Guide Capture,{target}\n"
    for i, target in enumerate(["Non-Targeting", "A", "A", "B"])
)
FILES = {
    "matrix_mtx": matrix_text(),
    "features_tsv": features_text(),
    "barcodes_tsv": barcodes_text(),
}
WORDS = b'\0\n\r\t,|"-0123456789 e.%\xff\xef'


def changed(content: bytes, rng: random.Random) -> bytes:
    """Some content with a few bytes replaced, removed, added or repeated, or cut."""
    found = bytearray(content)
    how = rng.choice(["replace", "flip", "remove", "add", "repeat", "cut"])
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(found) or 1)
        if how == "replace":
            found[at : at + 1] = bytes([rng.randrange(256)])
        elif how == "flip":
            found[at : at + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in found[at : at + 1])
        elif how == "remove":
            del found[at : at + rng.randrange(1, 40)]
        elif how == "add":
            found[at:at] = bytes(rng.choices(WORDS, k=rng.randrange(1, 9)))
        elif how == "repeat":
            start = rng.randrange(len(found) or 1)
            found[at:at] = found[start : start + rng.randrange(200)]
        else:
            del found[at:]
    return bytes(found)


def outcome(seed: int, folder: Path) -> str:
    """What comes of a call with one of the files changed: "a table", or the class of the error."""
    rng = random.Random(seed)
    options = {"guide_calls": folder / "calls.csv", "guide_targets": folder / "targets.csv"}
    (folder / "calls.csv").write_text(CALLS)
    (folder / "targets.csv").write_text(TARGETS)
    data = folder / "x.h5"
    which = rng.choice(["calls.csv", "targets.csv", *FILES, *FILES])
    if which in FILES:
        packed = rng.random() < 0.5
        content = FILES[which].encode()
        content = changed(gzip.compress(content) if packed else content, rng)
        data = write_folder(folder / "m", **FILES | {which: content})
    else:
        (folder / which).write_bytes(changed((folder / which).read_bytes(), rng))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = differential_expression(
                data, progress=False, backend="cpu", min_umis=rng.choice([None, 2]), **options
            )
        except PdexGpuError as error:
            return type(error).__name__
    assert found["p_value"].shape[1] == len(found.features)
    return "a table"


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(n, marks=pytest.mark.hostile) for n in range(50, 1000, 50))]
)
def test_changed_text(first, tmp_path):
    write_hdf5(tmp_path / "x.h5")
    outcomes = Counter(outcome(seed, tmp_path) for seed in range(first, first + 50))
    assert outcomes["a table"]
    assert outcomes["FileFormatError"]
