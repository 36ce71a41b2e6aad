"""The targets of `files.py`."""

from __future__ import annotations

from typing import ClassVar

from record import Record, Target, at_least, at_most

MATRICES = ("csr", "csc", "dense")
COMPRESSIONS = ("gzip", "lzf", "plain")


def _targets() -> dict[str, Target]:
    found = [
        at_most(f"{matrix}_{compression}_vs_h5py", 1.3, " x",
                f"{matrix}, {compression}: whole call / h5py reading X")
        for matrix in MATRICES
        for compression in COMPRESSIONS
        if compression != "plain"
    ]  # fmt: skip
    found += [
        at_most(f"{matrix}_plain_vs_memory", 1.3, " x",
                f"{matrix}, not compressed: whole call / in memory")
        for matrix in MATRICES
    ]  # fmt: skip
    found += [
        at_least("vs_illico", 20, "csr, gzip: illico 0.6.0 / pdex_gpu"),
        at_least("vs_pdex-0.3", 20, "csr, gzip: pdex 0.3.0 / pdex_gpu"),
        at_least("vs_pdex", 20, "csr, gzip: pdex 0.1.28 / pdex_gpu"),
        at_most("big_tight_vs_h5py", 1.5, " x", "big, 2 GB: whole call / h5py reading X"),
        at_most("big_roomy_vs_h5py", 1.2, " x", "big, 8 GB: whole call / h5py reading X"),
        at_most("big_tight_peak", 2.5, " GB", "big, 2 GB: peak resident memory"),
        at_most("triple_tight_peak", 2.5, " GB", "three times as big, 2 GB: peak"),
        at_most("kills_different", 0, "", "outputs that differ after a kill"),
        at_most("bits_different", 0, "", "runs that differ from the one in memory"),
    ]
    return {target.figure: target for target in found}


TARGETS = _targets()


class FilesRecord(Record):
    """A record of `files.py`."""

    targets: ClassVar[dict[str, Target]] = TARGETS
