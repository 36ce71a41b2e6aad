"""Reports: what they carry, word and number for number, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_results import ODD_NAMES, PROVENANCE, Streamed, made
from repository import ROOT

from pdex_gpu import errors
from pdex_gpu.calibration.result import Calibration
from pdex_gpu.report import payload, write_report
from pdex_gpu.report.bins import Background, Ranges, in_bins
from pdex_gpu.report.definitions import definitions
from pdex_gpu.report.encode import coded, json_text, label, pack, unpack, whole
from pdex_gpu.report.notes import notes
from pdex_gpu.report.page_data import document
from pdex_gpu.report.payload import collect, share
from pdex_gpu.report.provenance_table import settings, worded
from pdex_gpu.report.row_codes import decode_rows, encode_rows
from pdex_gpu.results import base
from pdex_gpu.results.effect import DIFFERENCE, RATIO
from pdex_gpu.results.memory import DEResult
from pdex_gpu.results.plot_values import LARGEST
from pdex_gpu.simulate import simulate_screen
from pdex_gpu.utils.formats import number_text


def meta_of(path: Path) -> dict[str, Any]:
    found = re.search(
        r'<script type="application/json" id="meta">(.*?)</script>', path.read_text("utf-8"), re.S
    )
    assert found is not None
    return json.loads(found[1])


def said(result: base.Result, fdr: float = 0.05, **options: Any) -> list[tuple[str, str]]:
    calibration = options.pop("calibration", None)
    return [
        (note.level, note.text)
        for note in notes(result, collect(result, fdr, **options), calibration)
    ]


def says(result: base.Result, words: str, **options: Any) -> bool:
    return any(words in text for _, text in said(result, **options))


# Encoding


@given(
    st.sampled_from(["u1", "u2", "u4", "i4", "f4"]).flatmap(
        lambda kind: st.tuples(
            st.just(kind), arrays(np.dtype(f"<{kind}"), st.integers(0, 40))
        )
    )
)  # fmt: skip
def test_packed_arrays_come_back(case: tuple[str, np.ndarray]):
    kind, values = case
    found = unpack(pack(values, kind))
    assert found.dtype.str.endswith(kind)
    assert found.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("top", "kind"), [(0, "u1"), (255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4")]
)
def test_the_shortest_type_is_taken(top: int, kind: str):
    packed = whole(np.array([0, top]))
    assert packed.kind == kind
    np.testing.assert_array_equal(unpack(packed), [0, top])


@pytest.mark.parametrize(("kind", "value"), [("u1", 256), ("u2", -1), ("i4", 1 << 31)])
def test_what_does_not_fit_is_refused(kind: str, value: int):
    with pytest.raises(ValueError, match="do not fit"):
        pack(np.array([value]), kind)


@given(st.text())
@example("<!-- </script> & \u2028 \u2029 -->")
def test_labels_cannot_end_their_element(text: str):
    written = json_text([text])
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == [text]


def test_labels_are_text_that_utf8_holds():
    assert label("a\ud800b") == "a?b"
    assert label(3) == "3"
    texts, codes = coded(np.array(["b", "a", "b", 3], object))
    assert texts == ["b", "a", "3"]
    assert codes.tolist() == [0, 1, 0, 2]


_FLOATS = arrays(
    np.uint32,
    12,
    elements=st.one_of(
        st.integers(0, (1 << 32) - 1),
        st.sampled_from([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x3F800000]),
    ),
)


@given(st.data())
def test_rows_come_back_to_the_bit(data: st.DataObject):
    n_genes = data.draw(st.integers(1, 5))
    gene = data.draw(arrays(np.int64, 12, elements=st.integers(0, n_genes - 1)))
    values = {name: data.draw(_FLOATS).view(np.float32) for name in payload.VALUES}
    rows = payload.Rows(np.array([12]), np.array([0]), gene, values, {})
    effect = data.draw(st.sampled_from([RATIO, DIFFERENCE]))
    found_gene, found = decode_rows(encode_rows(rows, n_genes, effect), n_genes, effect)
    np.testing.assert_array_equal(found_gene, gene)
    for name in payload.VALUES:
        np.testing.assert_array_equal(found[name].view(np.uint32), values[name].view(np.uint32))


def test_a_ratio_that_is_not_a_number_counts_as_zero():
    values = {name: np.zeros(1, np.float32) for name in payload.VALUES}
    values["effect"] = np.ones(1, np.float32)
    rows = payload.Rows(np.array([1]), np.array([0]), np.array([0]), values, {})
    steps = unpack(encode_rows(rows, 1, RATIO)["row_effect"])
    assert steps.tolist() == [2 * 0x3F800000]  # as the page has it, whatever the bits of 0 / 0


def test_a_shared_reference_and_ratios_cost_little():
    data = collect(made(60, 300, hits=0.5), 0.05)
    packed = encode_rows(data.rows, 300, RATIO)
    n = len(data.rows.gene)
    assert n > 8_000
    # 0.28 and 0.33 bytes of text a row were seen, against 4.7 of the target means.
    assert len(packed["row_reference_mean"].text) < 0.4 * n
    assert len(packed["row_effect"].text) < 0.5 * n


# What is carried


def described(result: base.Result, fdr: float, most: int) -> None:
    """Every row is carried or counted, exactly once; and the right ones are carried."""
    data = collect(result, fdr, most)
    n, n_genes = len(result.targets), len(result.features)
    shape = (n, n_genes)
    there = np.full(shape, True) if result.kept is None else result.kept
    p, fold, q = result["p_value"], result["fold_change"], result["fdr"]
    with np.errstate(all="ignore"):
        y = -result["log10_p"] if "log10_p" in result.columns else -np.log10(p)
        difference = result["target_mean"] - result["reference_mean"]
        change, x = (fold, np.log2(fold)) if data.effect.is_ratio else (difference, difference)
    hit = there & (q <= fdr)
    drawn = there & np.isfinite(x) & ~np.isnan(y)
    sizes = np.diff(data.rows.ends, prepend=0)
    t = np.repeat(np.arange(n), sizes)
    taken = np.zeros(shape, int)
    np.add.at(taken, (t, data.rows.gene), 1)
    assert taken.max(initial=0) <= 1
    assert not (taken.astype(bool) & ~there).any()

    behind = np.zeros(n, int)
    np.add.at(behind, np.repeat(np.arange(n), np.diff(data.background.ends, prepend=0)),
              data.background.counts)  # fmt: skip
    np.testing.assert_array_equal(behind, (drawn & (taken == 0)).sum(axis=1))
    behind = np.zeros(n_genes, int)
    grid = np.repeat(np.arange(n_genes), np.diff(data.gene_background.ends, prepend=0))
    np.add.at(behind, grid, data.gene_background.counts)
    np.testing.assert_array_equal(behind, (drawn & (taken == 0)).sum(axis=0))

    # Points lie within their grids, so that none is drawn elsewhere.
    left, right, top = data.gene_background.limits.T.astype(np.float64)
    inside = (x >= left - 1e-6) & (x <= right + 1e-6) & (np.minimum(y, LARGEST) <= top * (1 + 1e-6))
    assert inside[drawn & (taken == 0)].all()

    up = result["target_mean"] > result["reference_mean"]
    down = result["target_mean"] < result["reference_mean"]
    for counts, axis in ((data.comparisons, 1), (data.genes, 0)):
        np.testing.assert_array_equal(counts.rows, there.sum(axis=axis))
        np.testing.assert_array_equal(counts.up, (hit & up).sum(axis=axis))
        np.testing.assert_array_equal(counts.down, (hit & down).sum(axis=axis))
        np.testing.assert_array_equal(counts.hits, hit.sum(axis=axis))
        np.testing.assert_array_equal(counts.undrawn, (there & ~drawn).sum(axis=axis))

    quota = share(hit.sum(axis=1), most)
    assert np.minimum(hit.sum(axis=1), quota).sum() <= most
    for k in range(n):
        start = data.rows.ends[k] - sizes[k]
        hits = data.rows.gene[start : start + data.rows.n_hits[k]]
        others = data.rows.gene[start + data.rows.n_hits[k] : data.rows.ends[k]]
        assert hit[k, hits].all()
        assert not hit[k, others].any()
        assert len(hits) == min(hit[k].sum(), quota)
        wanted = min(max(0, 20 - len(hits)), (there[k] & ~np.isnan(y[k]) & ~hit[k]).sum())
        assert len(others) == wanted
        for chosen, among in ((hits, hit[k]), (others, there[k] & ~hit[k] & ~np.isnan(y[k]))):
            left = among.copy()
            left[chosen] = False
            if len(chosen) and left.any():
                assert np.nanmin(y[k, chosen]) >= np.nanmax(y[k, left])
    values = data.rows.values
    with np.errstate(all="ignore"):
        wanted_columns = {
            "effect": change, "log10_p": -y, "log10_fdr": np.log10(q),
            "target_mean": result["target_mean"], "reference_mean": result["reference_mean"],
            "statistic": result["statistic"],
        }  # fmt: skip
        for name, column in wanted_columns.items():
            np.testing.assert_array_equal(
                values[name], column[t, data.rows.gene].astype(np.float32), err_msg=name
            )


NAN = np.full((6, 40), np.nan)
KEPT = np.random.default_rng(5).random((6, 40)) < 0.5


@pytest.mark.parametrize(
    "result",
    [
        made(),
        made(kept=KEPT),
        made(kept=np.zeros((6, 40), bool)),
        made(hits=0.0),
        made(hits=1.0, n_genes=90),
        made(0, 5),
        made(3, 0),
        made(1, 1),
        made(extra=()),
        made(extra=(), p_value=np.zeros((6, 40)), fdr=np.zeros((6, 40))),
        made(fold_change=np.where(KEPT, 0.0, np.nan)),
        made(fold_change=np.where(KEPT, np.inf, 1.0)),
        made(fold_change=NAN, provenance={"negative_values": True}),
        made(fold_change=NAN, kept=KEPT),
        made(**dict.fromkeys(("fold_change", "log10_p", "p_value", "fdr"), NAN)),
        made(p_value=np.ones((6, 40)), log10_p=np.zeros((6, 40)), fdr=np.ones((6, 40))),
    ],
    ids=[
        "plain", "filtered", "nothing kept", "no hits", "all hits", "no comparisons", "no genes",
        "one row", "no log10_p", "p all 0", "no fold changes", "infinite", "negative values",
        "no ratios", "NaN", "p all 1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("most", [1_000_000, 50, 3])
def test_every_row_is_carried_or_counted(result: Any, most: int, monkeypatch: pytest.MonkeyPatch):
    described(result, 0.05, most)
    monkeypatch.setattr(base, "_BLOCK_VALUES", 600)  # a few comparisons a block
    described(result, 0.05, most)


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 200))
def test_shares_use_all_there_is(wanted: list[int], most: int):
    sizes = np.array(wanted, np.int64)
    found = share(sizes, most)
    assert np.minimum(sizes, found).sum() <= most
    if sizes.max(initial=0) > found:
        assert np.minimum(sizes, found + 1).sum() > most


def test_bins_are_those_of_a_histogram():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 500), rng.exponential(1, 500)
    ranges = Ranges(1)
    ranges.widen(x[:, None], y[:, None], np.full((500, 1), True))
    limits = ranges.limits()
    assert limits[0].tolist() == [np.float32(x.min()), np.float32(x.max()), np.float32(y.max())]
    found = np.bincount(in_bins(x, y, limits[[0] * 500], (7, 5)), minlength=35).reshape(5, 7)
    left, right, top = limits[0].astype(float)
    inside_x, inside_y = np.clip(x, left, right), np.clip(y, 0, top)
    wanted = np.histogram2d(inside_y, inside_x, (5, 7), ((0, top), (left, right)))[0]
    np.testing.assert_array_equal(found, wanted)
    background = Background.of(found.reshape(1, -1), limits, (7, 5))
    assert background.ends.tolist() == [np.count_nonzero(found)]
    np.testing.assert_array_equal(background.counts, found.ravel()[background.bins])


def test_ranges_without_points_have_extent():
    ranges = Ranges(2)
    ranges.widen(np.full((1, 2), 3.0), np.zeros((1, 2)), np.array([[True, False]]))
    np.testing.assert_array_equal(ranges.limits(), np.float32([[2.5, 3.5, 1e-3], [-1, 1, 1]]))


def test_p_values_of_silent_tests_are_not_in_the_histogram():
    zero = np.zeros((2, 30))
    zero[:, :10] = 1.0
    statistic = np.where(np.arange(30) == 3, np.nan, 1.0) * np.ones((2, 30))
    p = np.tile(np.linspace(0, 1, 30), (2, 1))
    result = made(2, 30, target_mean=zero, reference_mean=zero, statistic=statistic, p_value=p,
                  extra=())  # fmt: skip
    totals = collect(result, 0.05).totals
    judged = np.delete(p[:, :10], 3, axis=1)
    assert totals.uninformative == 42
    np.testing.assert_array_equal(totals.histogram, np.histogram(judged, 20, (0, 1))[0])
    assert totals.above_half == 0
    assert totals.zeros == 2


def test_the_limit_itself_is_a_hit():
    fdr = np.array([[0.05, np.nextafter(0.05, 1), 0.049, 0.0, 1.0]])
    data = collect(made(1, 5, fdr=fdr), 0.05)
    assert data.rows.gene.tolist() == [0, 2, 3, 1, 4]
    assert data.rows.n_hits.tolist() == [3]
    assert data.comparisons.hits.tolist() == [3]
    assert data.genes.hits.tolist() == [1, 0, 1, 1, 0]


def test_own_genes_are_found():
    result = made(
        targets=["G001", "G001", "none", "3"], features=["G000", 3, "G001", "G001"],
        fdr=np.array([[1, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 1]]),
        kept=np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1]], bool),
    )  # fmt: skip
    own = collect(result, 0.05).own
    assert own.gene.tolist() == [2, -1, -1, 1]  # one was filtered out
    assert own.hit.tolist() == [True, False, False, True]
    np.testing.assert_array_equal(
        own.size,
        [
            np.log2(result["fold_change"][0, 2]),
            np.nan,
            np.nan,
            np.log2(result["fold_change"][3, 1]),
        ],
    )


def test_own_genes_that_a_result_names():
    """Whatever the targets are called; and where it names none, those of their names."""
    features, targets = ["G0", "G1", "G2"], ["sg_1", "sg_2", "G2"]
    named = {"sg_1": "G1", "sg_2": "G0"}
    result = made(targets=targets, features=features, provenance={"own_genes": named})
    assert collect(result, 0.05).own.gene.tolist() == [1, 0, -1]
    assert collect(made(targets=targets, features=features), 0.05).own.gene.tolist() == [-1, -1, 2]
    kept = np.array([[0, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    result = made(targets=targets, features=features, kept=kept, provenance={"own_genes": named})
    assert collect(result, 0.05).own.gene.tolist() == [1, -1, -1]
    # Of an earlier version: its rows are the own genes.
    result = made(targets=targets, features=features, kept=kept, provenance={"on_target": "gene"})
    assert collect(result, 0.05).own.gene.tolist() == [1, 1, -1]


def test_mock_groups_are_told_class_by_class():
    classes = [
        {"target_cells": [5, 5], "mock_groups": 20, "excess": {"0.05": 1.1, "0.001": None}},
        {"target_cells": [12, 14], "mock_groups": 31, "excess": {"0.05": 0.9, "0.001": 2.0}},
    ]
    facts = {"seed": 0, "splits": 4, "size_classes": classes}
    ((heading, lines),) = settings({"empirical_null": facts, "fdr_method": "empirical"})
    assert heading == "Test"
    assert dict(lines)["Correction"] == "empirical"
    assert dict(lines)["Mock groups of controls"] == (
        "20 for targets of 5 cells (1.1 times the expected number of p-values at 0.05); 31 for "
        "targets of 12 to 14 cells (0.9 times the expected number of p-values at 0.05, 2 times the "
        "expected number of p-values at 0.001)"
    )
    told = dict(definitions({"fdr_method": "empirical"}, 0.05, RATIO))["FDR"]
    assert told == (
        "share of p-values of mock groups of controls that are at most as large as the p-value, "
        "adjusted by benjamini-hochberg over all rows (threshold here: 0.05)."
    )


def test_nothing_is_assumed_of_results_without_a_record(tmp_path: Path):
    meta = meta_of(write_report(made(provenance={}), tmp_path / "r.html"))
    assert re.fullmatch(r"6 .* in \d comparisons?\.", meta["summary"])
    assert meta["settings"] == []
    told = dict(meta["definitions"])
    assert told["FDR"] == "adjusted p-value (threshold here: 0.05)."
    assert told["Mean"] == "the mean of the cells' values, on the count scale."
    assert told["log2 fold change"] == (
        "log2 of the mean of the perturbation over that of the reference."
    )
    assert told["p-value"] == "of the test. It is 1 where the test is undefined."
    assert says(made(provenance={}), "no record of how they were made")
    assert not says(made(), "no record of how they were made")


def test_definitions_say_what_was_recorded():
    told = dict(definitions(PROVENANCE | {"is_log1p": False, "clip_value": None}, 0.05, RATIO))
    assert told["FDR"] == (
        "p-value adjusted by benjamini-hochberg over all rows (threshold here: 0.05)."
    )
    assert told["Mean"].endswith("on the count scale (values as stored).")
    assert told["log2 fold change"].endswith("; where a mean is 0, there is no value.")
    told = dict(definitions(PROVENANCE | {"is_log1p": True}, 0.05, RATIO))
    assert told["Mean"].endswith("on the count scale (log1p data: expm1 of the mean).")
    assert told["log2 fold change"].endswith(
        "where a mean is 0, the ratio is clipped to 1/20 or 20."
    )


def test_own_genes_are_counted_among_the_settings():
    shown = dict(
        line for _, lines in settings({"own_genes": {"a": "A", "b": "B"}}) for line in lines
    )
    assert shown == {"Perturbations with an own gene": "2"}


def test_the_strongest_are_chosen_from_p_then_fold_change_then_order():
    shape = (1, 30)
    fold = np.full(shape, 2.0)
    fold[0, 7] = 8.0
    fold[0, 25] = np.nan
    result = made(1, 30, fold_change=fold, p_value=np.full(shape, 0.5), fdr=np.ones(shape),
                  extra=())  # fmt: skip
    genes = collect(result, 0.05).rows.gene.tolist()
    assert genes == list(range(20))
    p = np.full(shape, 0.5)
    p[0, 29] = 0.1
    result = made(1, 30, fold_change=fold, p_value=p, fdr=np.ones(shape), extra=())
    assert collect(result, 0.05).rows.gene.tolist() == [*range(19), 29]


# Words


def test_all_of_provenance_is_there():
    provenance = PROVENANCE | {"strata": None, "is_log1p": True, "new key": {"a": [1, 2.5]}}
    groups = settings(provenance)
    flat = [line for _, lines in groups for line in lines]
    assert len(flat) == len(provenance) - 1 + len(provenance["versions"])
    assert ("Cells", "1,234") in flat
    assert ("Treated as log1p", "yes") in flat
    assert ("new key", "a: 1, 2.5") in flat
    assert ("Strata", "none") in flat
    assert settings({}) == []
    assert worded("a\ud800") == "a?"


def test_the_settings_of_a_run_are_named():
    from pdex_gpu import differential_expression

    screen = simulate_screen(150, 12, 3, mean_umi=100).to_anndata()
    result = differential_expression(
        screen, "target_gene", reference="non-targeting", progress=False
    )
    assert "Other" not in [heading for heading, _ in settings(result.provenance)]


@pytest.mark.parametrize(
    ("result", "level", "words"),
    [
        (made(0, 5), "warning", "no rows"),
        (made(extra=(), p_value=np.zeros((6, 40))), "warning", "240 p-values are 0"),
        (made(p_value=NAN, log10_p=NAN, fdr=NAN), "warning", "240 rows have no p-value"),
        (made(hits=0.0), "note", "No row has an FDR of 0.05"),
        (made(provenance=PROVENANCE | {"removed": {"min_cpm": 60}}), "note",
         "min_cpm removed 60 pairs of perturbation and gene (20.0 %)"),
        (made(provenance=PROVENANCE | {"backend": "cuda"}), "warning", "CUDA backend"),
        (made(provenance=PROVENANCE | {"metric": "anderson",
                                       "test_options": {"p_values": "'interpolated'"}}),
         "warning", "0.001 to 0.25"),
        (made(provenance=PROVENANCE | {"metric": "anderson"}), "note", "continuous values"),
        (made(provenance=PROVENANCE | {"metric": "ks"}), "note", "make them too large"),
        (made(provenance=PROVENANCE | {"metric": "ks",
                                       "test_options": {"p_values": "'conditional'"}}),
         "note", "exact given ties"),
        (made(provenance=PROVENANCE | {"metric": "ks",
                                       "test_options": {"p_values": "'asymptotic'"}}),
         "note", "ties, as in sparse counts"),
        (made(provenance=PROVENANCE | {"metric": "ks", "p_values": "conditional"}),
         "note", "exact given ties"),
        (made(provenance=PROVENANCE | {"metric": "anderson", "p_values": "asymptotic"}),
         "note", "continuous values"),
        (made(target_n_cells=np.tile(np.arange(7, 13)[:, None], 40)), "warning",
         "3 comparisons have fewer than 10 target cells; P000 has the fewest, 7."),
        (made(provenance=PROVENANCE | {"negative_values": True}), "warning",
         "Some values are negative"),
        (made(fold_change=NAN), "warning", "No row has a ratio of means"),
        (made(provenance=PROVENANCE | {"raw_counts": True}), "note",
         "not normalised for library size"),
        (made(features=["a", "b", "a", "a"]), "note", "2 genes have the same name"),
        (made(), "note", "share one reference"),
        (made(fold_change=np.where(KEPT, np.nan, 1.0)), "note", "no finite log2 fold change"),
    ],
)  # fmt: skip
def test_what_is_pointed_out(result: Any, level: str, words: str):
    assert [found for found, text in said(result) if words in text] == [level]


def test_nothing_is_pointed_out_without_need():
    quiet = made(1, provenance=PROVENANCE | {"comparison": "rest"})
    assert said(quiet) == []
    told = {"negative_values": False, "raw_counts": False}
    assert said(made(1, provenance=told)) == []


def test_several_references_are_not_called_one():
    assert not says(made(2, references=["a", "b"]), "one reference")
    assert not says(made(2, within=("type", ["a", "b"])), "one reference")
    assert says(made(2), "one reference")


def test_warnings_come_first():
    result = made(provenance=PROVENANCE | {"backend": "cuda", "removed": {"min_cpm": 60}})
    assert [level for level, _ in said(result)] == ["warning", "note", "note"]


def test_rows_that_are_left_out_are_counted():
    result = made(2, 100, hits=1.0)
    (text,) = [text for _, text in said(result, most=50) if "more than a page can hold" in text]
    assert "200 hits" in text
    assert "the 25 strongest" in text
    assert "150 are left out" in text
    assert not says(result, "more than a page")


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    from pdex_gpu import calibrate

    screen = simulate_screen(600, 40, 4, control_fraction=0.5, mean_umi=300).to_anndata()
    return calibrate(screen, "target_gene", reference="non-targeting", progress=False)


def test_the_calibration_is_judged(calibration: Calibration):
    from dataclasses import replace

    fits = PROVENANCE | {"reference": "non-targeting"}
    assert not says(made(provenance=fits), "calibration", calibration=calibration)
    assert not says(made(provenance=fits), "too many small", calibration=calibration)
    other = made(provenance=fits | {"metric": "t-test"})
    assert says(other, "used the metric 'wilcoxon', but this result used 't-test'",
                calibration=calibration)  # fmt: skip
    assert says(made(), "used the reference", calibration=calibration)
    judged = calibration.of()
    n_below = judged.n_below.copy()
    n_below[:, :, 1] = judged.n_tests  # all are below 0.01
    inflated = replace(calibration, kinds=(replace(judged, n_below=n_below),))
    words = "of all tests, p ≤ 0.01 is 100 times as frequent as it should be"
    assert says(made(provenance=fits), words, calibration=inflated)
    of_other = fits | {"p_values": "asymptotic"}
    words = "used the p_values 'conditional', but this result used 'asymptotic'"
    assert says(made(provenance=of_other), words, calibration=calibration)


# Files


def test_the_page_fetches_nothing_and_runs_only_its_own(tmp_path: Path):
    path = write_report(made(), tmp_path / "r.html")
    text = path.read_text("utf-8")
    assert "{{" not in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert style is not None
    assert len(scripts) == 1
    for part in (style[1], scripts[0]):
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1]
    assert policy[1].endswith("form-action https://maayanlab.cloud/Enrichr/")
    assert not re.search(r"\bsrc=|innerHTML|insertAdjacent|\beval\(|@import|url\(", text)
    # Where a click can lead, and the name of a format; nothing of the page loads from there.
    assert set(re.findall(r"https?://[^\s\"'`;$?<]*", text)) == {
        "https://maayanlab.cloud/Enrichr/",
        "https://maayanlab.cloud/Enrichr/enrich",
        "https://string-db.org/cgi/network",
        "http://www.w3.org/2000/svg",
    }
    assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(", text)


@pytest.mark.parametrize("title", [*ODD_NAMES[:9], None])
def test_titles_are_escaped(title: str | None, tmp_path: Path):
    text = write_report(made(), tmp_path / "r.html", title=title).read_text("utf-8")
    head = text[: text.index("<script")]
    assert "<script" not in head
    assert "<img" not in head
    import html

    wanted = html.escape(title or "Differential expression")
    assert f"<title>{wanted}</title>" in text
    assert f"<h1>{wanted}</h1>" in text


def test_labels_are_in_the_page_as_json(tmp_path: Path):
    result = made(targets=ODD_NAMES, features=ODD_NAMES[::-1], references=["<b>"] * len(ODD_NAMES),
                  within=("<i>", ODD_NAMES))  # fmt: skip
    path = write_report(result, tmp_path / "r.html")
    meta = meta_of(path)
    assert meta["labels"]["target"] == list(ODD_NAMES)
    assert meta["labels"]["within"] == list(ODD_NAMES)
    assert meta["features"] == list(ODD_NAMES[::-1])
    assert meta["within"] == "<i>"
    text = path.read_text("utf-8")
    assert "window.hacked = 1</script>" not in text
    assert "<img" not in text


def test_memory_file_and_path_give_the_same_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pdex_gpu import open_result

    result = made(kept=KEPT, extra=("log10_p", "target_n_cells", "reference_n_cells"))
    result.to_parquet(tmp_path / "r.parquet")
    pages = [write_report(result, tmp_path / "0.html").read_bytes()]
    monkeypatch.setattr(base, "_BLOCK_VALUES", 600)
    opened = open_result(tmp_path / "r.parquet")
    for k, source in enumerate((result, opened, opened.path, str(opened.path)), 1):
        pages.append(write_report(source, tmp_path / f"{k}.html").read_bytes())
    assert len(set(pages)) == 1


def test_calibrations_and_their_files_give_the_same_page(
    calibration: Calibration, tmp_path: Path
):  # fmt: skip
    calibration.to_json(tmp_path / "c.json")
    given = write_report(made(), tmp_path / "1.html", calibration=calibration)
    read = write_report(made(), tmp_path / "2.html", calibration=tmp_path / "c.json")
    assert given.read_bytes() == read.read_bytes()
    part = meta_of(given)["calibration"]
    judged, parts = calibration.of(), calibration.parts()
    np.testing.assert_allclose(part["observed"], judged.quantiles.observed, rtol=1e-5)
    assert [row[0][0] for row in part["rows"]] == [its.title for its in parts]
    shown = [row[2][0].strip("()") for row in part["rows"]]
    assert shown == [number_text(its.excess[0], ".2f") for its in parts]
    assert part["checked"] == calibration.checked


@pytest.mark.parametrize(
    ("groupby", "noun"),
    [
        ("cell_type", "cell type"),
        (["Cell.Type", "donor"], "cell type"),
        ("leiden_0.5", "cluster"),
        ("cell line", "cell line"),
        ("predicted_annotation", "cell type"),
        ("target_gene", "perturbation"),
        (["guide", "cell_type"], "perturbation"),
        ([], "perturbation"),
        (None, "perturbation"),
    ],
)
def test_groups_are_called_what_their_column_says(groupby: Any, noun: str, tmp_path: Path):
    result = made(provenance=PROVENANCE | {"groupby": groupby})
    path = write_report(result, tmp_path / "r.html")
    assert meta_of(path)["noun"] == {"one": noun, "many": f"{noun}s"}
    text = path.read_text("utf-8")
    assert f"Hits per {noun}<" in text
    assert meta_of(path)["summary"].startswith(f"6 {noun}s against ctrl")
    definitions = dict(meta_of(path)["definitions"])
    assert definitions["Hit"].startswith(f"a pair of {noun} and gene")


def test_rows_carry_their_own_numbers_of_cells():
    cells = np.arange(12).reshape(3, 4) + 10
    kept = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 1]], bool)
    result = made(3, 4, target_n_cells=cells, kept=kept, extra=("target_n_cells",))
    data = collect(result, 0.05)
    sizes = np.diff(data.rows.ends, prepend=0)
    t = np.repeat(np.arange(3), sizes)
    np.testing.assert_array_equal(data.rows.n_cells["target"], cells[t, data.rows.gene])
    assert list(data.rows.n_cells) == ["target"]
    assert data.n_cells["target"].tolist() == [12, 17, 21]
    _, packed = document(result, data, None, title=None)
    fewer = unpack(packed["row_fewer_target"])
    np.testing.assert_array_equal(data.n_cells["target"][t] - fewer, cells[t, data.rows.gene])


def test_the_heat_map_has_the_genes_with_the_most_hits():
    result = made(8, 90, hits=0.4, kept=np.random.default_rng(2).random((8, 90)) < 0.8)
    hit = result.kept & (result["fdr"] <= 0.05)  # type: ignore[operator]
    found = collect(result, 0.05).effect_map
    wanted = np.argsort(-hit.sum(axis=0), kind="stable")[:40]
    assert found.genes.tolist() == wanted.tolist()
    sizes = np.where(result.kept, np.log2(result["fold_change"]), np.nan)[:, wanted]
    np.testing.assert_array_equal(found.sizes, sizes.astype(np.float32))
    assert collect(made(hits=0.0), 0.05).effect_map.sizes.shape == (6, 0)


def test_symbols_come_with_identifiers(tmp_path: Path):
    base_result = made(2, 3, features=["ENSG1", "ENSG2", "ENSG3"])
    result = DEResult(
        base_result.targets, base_result.references, base_result.features,
        {name: base_result[name] for name in base_result.columns}, PROVENANCE,
        symbols=np.array(["MYH7", "TBCE", "TBCE"], object),
    )  # fmt: skip
    meta = meta_of(write_report(result, tmp_path / "r.html"))
    assert meta["features"] == ["MYH7", "TBCE (ENSG2)", "TBCE (ENSG3)"]
    assert meta["symbols"] == ["MYH7", "TBCE", "TBCE"]
    assert meta["identifiers"] == ["ENSG1", "ENSG2", "ENSG3"]
    meta = meta_of(write_report(base_result, tmp_path / "p.html"))
    assert meta["symbols"] is None
    assert meta["identifiers"] is None


def test_the_limit_and_the_title_are_used(tmp_path: Path):
    result = made()
    meta = meta_of(write_report(result, tmp_path / "r.html", fdr=1e-20, title="Mine"))
    assert meta["n_hits"] == np.count_nonzero(result["fdr"] <= 1e-20)
    assert meta["title"] == "Mine"
    assert "FDR ≤ 1e-20" in meta["summary"]


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path):
    path = tmp_path / "r.html"
    path.write_text("mine")
    with pytest.raises(errors.OptionError, match=r"already exists. Add --force"):
        write_report(made(), path)
    assert path.read_text() == "mine"
    assert write_report(made(), str(path), force=True) == path
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "r.html"
    path.write_text("mine")

    def full(file: Path, text: str, **_: Any) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(errors.OutputError, match="is full"):
        write_report(made(), path, force=True)
    assert path.read_bytes() == b"mine"
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]


def test_bad_options_are_refused_before_work(tmp_path: Path):
    class Never(Streamed):
        def blocks(self, names: Any) -> Any:
            raise AssertionError("work was begun")

    result = Never(2, 2, 0.1)
    (tmp_path / "folder.html").mkdir()
    for options, words in (
        ({"path": tmp_path / "folder.html"}, "is a folder"),
        ({"path": tmp_path}, "is a folder"),
        ({"path": tmp_path / "r.parquet"}, "ends in '.parquet'. Pass a path that ends in .html"),
        ({"path": tmp_path / "none" / "r.html"}, "none' does not exist"),
        ({"fdr": 0.0}, "fdr=0.0 must be"),
        ({"fdr": "5 %"}, "fdr='5 %' must be"),
        ({"title": 3}, "title=3 must be text"),
        ({"calibration": 3}, "calibration= takes a Calibration or a path, not a int"),
    ):
        with pytest.raises(errors.OptionError, match=re.escape(words)):
            write_report(result, **({"path": tmp_path / "r.html"} | options))
    with pytest.raises(errors.OptionError, match="takes a pdex_gpu result, not a dict"):
        write_report({}, tmp_path / "r.html")  # type: ignore[arg-type]


def test_files_that_are_no_results_are_refused(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = tmp_path / "r.html"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write_report(tmp_path / "none.parquet", out)
    (tmp_path / "text.parquet").write_text("no")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    for name in ("text.parquet", "other.parquet"):
        with pytest.raises(errors.FileFormatError):
            write_report(tmp_path / name, out)
    with pytest.raises(errors.OptionError, match="is a folder"):
        write_report(tmp_path, out)
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(errors.FileFormatError, match="not a pdex_gpu calibration"):
        write_report(made(), out, calibration=tmp_path / "c.json")
    assert not out.exists()


def test_a_result_reports_itself(tmp_path: Path):
    result = made()
    one = result.report(tmp_path / "1.html", title="T", fdr=0.1)
    two = write_report(result, tmp_path / "2.html", title="T", fdr=0.1)
    assert one.read_bytes() == two.read_bytes()


def test_p_values_of_zero_stand_at_the_edge():
    result = made(1, 60, extra=(), p_value=np.zeros((1, 60)), fdr=np.zeros((1, 60)), hits=0.0)
    data = collect(result, 0.05, most=30)
    assert len(data.rows.gene) == 30
    assert (data.rows.values["log10_p"] == -np.inf).all()
    assert data.background.limits[0, 2] == np.float32(LARGEST)
    assert data.background.counts.sum() == 30


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="not run from a checkout")
def test_the_wheel_has_the_page(tmp_path: Path):
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (wheel,) = builder.build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    folder = ROOT / "pdex_gpu" / "report" / "page"
    files = {f"pdex_gpu/report/page/{file.name}" for file in folder.iterdir()}
    assert {Path(name).suffix for name in files} == {".html", ".css", ".js"}
    assert files <= names
