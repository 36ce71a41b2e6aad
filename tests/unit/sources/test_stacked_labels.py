"""Genes, labels and matrices of obsm of several files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from pdex_gpu.design.labels import Labels, object_array
from pdex_gpu.errors import DataError, LabelError
from pdex_gpu.sources.obs_columns import Values
from pdex_gpu.sources.stacked.genes import join_genes
from pdex_gpu.sources.stacked.labels import stack_labels, stack_matrices

FILES = ["one.h5ad", "two.h5ad"]


def names(text: str) -> np.ndarray:
    return object_array(text.split())


def labels(codes: list[int], categories: list[Any]) -> Labels:
    return Labels(np.array(codes, np.int64), object_array(categories))


def joined(join: str, *genes: str) -> tuple[str, str, list[list[int]]]:
    found = join_genes(FILES, [names(one) for one in genes], join)
    kept, left_out = found.names[: found.n_genes], found.names[found.n_genes :]
    return " ".join(kept), " ".join(left_out), [place.tolist() for place in found.places]


def test_equal_genes_share_their_places() -> None:
    assert joined("inner", "a b", "a b") == ("a b", "", [[0, 1], [0, 1]])
    found = join_genes(FILES, [names("a b"), names("a b")], "outer")
    assert found.places[0] is found.places[1]


def test_genes_are_in_the_order_of_the_first_file() -> None:
    assert joined("inner", "c a b", "b d c") == ("c b", "a d", [[0, 2, 1], [1, 3, 0]])
    assert joined("outer", "c a b", "b d c") == ("c a b d", "", [[0, 1, 2], [2, 3, 0]])
    assert joined("outer", "a", "b") == ("a b", "", [[0], [1]])


def test_genes_that_cannot_be_joined() -> None:
    with pytest.raises(DataError, match=r"^two.h5ad has several genes named 'b' .*: 1\)"):
        joined("inner", "a b", "b c b")
    with pytest.raises(DataError, match=r"^one.h5ad has several genes named 'a'"):
        joined("inner", "a a", "a a")
    told = "No gene is in all of the 2 files: one.h5ad begins with 'a', 'b'; two.h5ad begins with"
    with pytest.raises(DataError, match=f"{told} 'c'. .*join='outer'"):
        joined("inner", "a b", "c")


def test_categories_are_united_in_order_of_appearance() -> None:
    found = stack_labels("g", FILES, [labels([1, -1, 0], ["x", "y"]), labels([0, 1], ["z", "y"])])
    assert found.codes.tolist() == [1, -1, 0, 2, 1]
    assert found.categories.tolist() == ["x", "y", "z"]


def test_whole_numbers_become_floats_beside_floats() -> None:
    found = stack_labels("n", FILES, [labels([0, 1], [1, 2]), labels([0, -1], [2.0])])
    assert found.codes.tolist() == [0, 1, 1, -1]
    assert [type(label) for label in found.categories] == [float, float]
    whole = stack_labels("n", FILES, [labels([0], [1]), labels([0], [3])])
    assert [type(label) for label in whole.categories] == [int, int]


@pytest.mark.parametrize(
    ("other", "kinds"),
    [("1", "text in two.h5ad (such as '1')"), (True, "True or False in two.h5ad (such as True)")],
)
def test_labels_of_different_types(other: object, kinds: str) -> None:
    with pytest.raises(LabelError) as caught:
        stack_labels("g", FILES, [labels([0], [1]), labels([0], [other])])
    assert f"Column 'g' of obs holds numbers in one.h5ad (such as 1) and {kinds}." in str(
        caught.value
    )


def flags(*values: object) -> Values:
    array = np.array(values)
    return Values(array, np.zeros(len(array), bool))


def stacked(one: Any, two: Any, n: tuple[int, int] = (2, 1)) -> Any:
    return stack_matrices("guides", FILES, n, [one, two])


def test_named_columns_are_united() -> None:
    one = [flags(True, False), flags(False, True)], ["a", "b"]
    found, columns = stacked(one, ([flags(True), flags(True)], ["c", "a"]))
    assert columns == ["a", "b", "c"]
    assert [column.values.tolist() for column in found] == [
        [True, False, True],
        [False, True, False],
        [False, False, True],
    ]
    found, _ = stacked(one, ([flags("yes"), flags(True)], ["a", "b"]))
    assert found[0].values.tolist() == [True, False, "yes"]


def test_matrices_without_names_are_stacked() -> None:
    dense, thin = np.array([[1, 0], [0, 1]]), sparse.csc_matrix([[0, 1]])
    found, columns = stacked((dense, None), (np.array([[1, 1]]), None))
    assert columns is None
    assert found.tolist() == [[1, 0], [0, 1], [1, 1]]
    found, _ = stacked((dense, None), (thin, None))
    assert found.toarray().tolist() == [[1, 0], [0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("two", "words"),
    [
        ((np.ones((1, 3)), None), r"shape \(2, 2\) in one.h5ad, but \(1, 3\) in two.h5ad"),
        (([flags(True)], ["a"]), "is a data frame in two.h5ad, .* but an array in one.h5ad"),
        ((np.ones((2, 2)), None), "of two.h5ad has 2 rows, but there are 1 cells"),
        ((np.array(1), None), "of two.h5ad has -1 rows"),
    ],
)
def test_matrices_that_do_not_fit(two: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        stacked((np.ones((2, 2)), None), two)


def test_columns_of_equal_names() -> None:
    one = [flags(True), flags(True)], ["a", "a"]
    with pytest.raises(DataError, match=r"of one.h5ad has several columns of the same name"):
        stacked(one, one, (1, 1))
