"""A small AnnData with labels of every type in obs, and what a dataset must say of it."""

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from source_reads import read_back

VALUES = np.array([[1, 0, 2, 0], [0, 0, 3, 0], [0, 4, 0, 0], [5, 0, 0, 6], [0] * 4, [7] * 4], "f4")
CELLS = [f"cell{i}" for i in range(6)]
GENES = ["A", "B", "C", "D"]

# column: (values, codes, categories)
COLUMNS = {
    "categorical": (
        pd.Categorical(["a", "b", None, "a", "b", "a"], categories=["b", "unused", "a"]),
        [2, 0, -1, 2, 0, 2],
        ["b", "unused", "a"],
    ),
    "numbered": (pd.Categorical([30, 10, 30, None, 10, 30]), [1, 0, 1, -1, 0, 1], [10, 30]),
    "none at all": (pd.Categorical([None] * 6, categories=[]), [-1] * 6, []),
    "integer": (np.array([5, 3, 5, 4, 3, 5]), [0, 1, 0, 2, 1, 0], [5, 3, 4]),
    "float": (
        np.array([1.5, np.nan, 0.5, 1.5, 0.5, np.inf]),
        [0, -1, 1, 0, 1, 2],
        [1.5, 0.5, np.inf],
    ),
    "bool": (np.array([True, False, True, True, False, False]), [0, 1, 0, 0, 1, 1], [True, False]),
    "Int64": (pd.array([2, None, 1, 2, 1, 2], dtype="Int64"), [0, -1, 1, 0, 1, 0], [2, 1]),
    "boolean": (
        pd.array([True, None, False, True, False, True], dtype="boolean"),
        [0, -1, 1, 0, 1, 0],
        [True, False],
    ),
    "string": (
        pd.array(["y", None, "x", "ü", "", "y"], dtype="string"),
        [0, -1, 1, 2, 3, 0],
        ["y", "x", "ü", ""],
    ),
    "object": (
        np.array(["y", "x", "x", "z", "y", "y"], object),
        [0, 1, 1, 2, 0, 0],
        ["y", "x", "z"],
    ),
}


def example(kind=sparse.csr_matrix):
    obs = pd.DataFrame({name: column[0] for name, column in COLUMNS.items()}, index=CELLS)
    return anndata.AnnData(
        kind(VALUES), obs=obs, var=pd.DataFrame(index=GENES), layers={"twice": kind(2 * VALUES)}
    )


def assert_example(dataset, factor=1):
    assert (dataset.source.n_cells, dataset.source.n_genes) == (6, 4)
    np.testing.assert_array_equal(read_back(dataset.source, [0, 1, 4]), factor * VALUES)
    assert dataset.genes.dtype == object
    assert list(dataset.genes) == GENES
    assert all(type(name) is str for name in dataset.genes)
    assert dataset.cell_name(3) == "cell3"


def assert_labels(labels, column):
    _, codes, categories = COLUMNS[column]
    assert labels.codes.dtype == np.int64
    assert labels.categories.dtype == object
    assert labels.codes.tolist() == codes
    assert list(labels.categories) == categories
    assert [type(c) for c in labels.categories] == [type(c) for c in categories]


def meaning(labels):
    """The label of each cell: the same whatever the order of the categories."""
    return [None if code < 0 else labels.categories[code] for code in labels.codes]
