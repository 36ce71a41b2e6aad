"""A result in the forms that other packages take: AnnData, wide frames, ranked lists."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.naming import level_columns
from ..errors import OptionError, unknown
from .effect import DIFFERENCE, mean_difference
from .schema import INTEGERS

if TYPE_CHECKING:
    import anndata
    import pandas

    from .memory import DEResult

#: An order of genes, in addition to the columns.
SIGNED = "signed_log10_p"

_SMALLEST = np.log10(np.nextafter(0.0, 1.0))  # -323.3, for a p-value that underflowed to 0


def to_anndata(result: DEResult) -> anndata.AnnData:
    """See :meth:`.results.memory.DEResult.to_anndata`."""
    import anndata as ad
    import pandas as pd

    labels = {"target": result.targets, "reference": result.references}
    labels |= level_columns(result.within)
    obs = {name: _category(of_rows) for name, of_rows in labels.items()}
    layers = {name: result[name].copy() for name in result.columns}
    if result.kept is not None:
        layers |= {
            name: np.where(result.kept, layers[name], np.nan)
            for name in result.columns
            if name in INTEGERS
        }
    return ad.AnnData(
        obs=pd.DataFrame(obs, index=pd.Index(_names(result))),
        var=pd.DataFrame(
            {} if result.symbols is None else {"symbol": list(map(str, result.symbols))},
            index=pd.Index(list(map(str, result.features))),
        ),
        layers=layers,
        uns={"pdex_gpu": json.dumps(result.provenance, default=str)},
    )


def to_wide(result: DEResult, column: str) -> pandas.DataFrame:
    """See :meth:`.results.memory.DEResult.to_wide`."""
    import pandas as pd

    return pd.DataFrame(
        _values(result, column, slice(None)),
        index=pd.Index(_names(result), name="target"),
        columns=pd.Index(list(map(str, result.features)), name="feature"),
    )


#: The columns of pertpy's tables that are columns of a result, by pertpy's names.
PERTPY = {
    "p_value": "p_value",
    "statistic": "statistic",
    "log_fc": "log2_fold_change",
    "adj_p_value": "fdr",
}


def to_pertpy(result: DEResult) -> pandas.DataFrame:
    """See :meth:`.results.memory.DEResult.to_pertpy`."""
    import pandas as pd

    if PERTPY["log_fc"] not in result.columns:
        raise OptionError(
            "This result has no log2_fold_change, which pertpy's tables need. Pass "
            "columns=['log2_fold_change'] to the call that made it."
        )
    kept = np.ones((len(result.targets), len(result.features)), bool)
    t, g = np.nonzero(kept if result.kept is None else result.kept)
    columns = {name: result[own][t, g] for name, own in PERTPY.items()}
    order = np.lexsort((g, columns["p_value"], t))  # NaN last
    names = _names(result)
    genes = np.array(list(map(str, result.features)), dtype=object)
    frame = {
        "variable": genes[g[order]],
        **{name: values[order] for name, values in columns.items()},
        "contrast": pd.Categorical.from_codes(t[order], categories=pd.Index(names)),
    }
    if result.symbols is not None:
        symbols = np.array(list(map(str, result.symbols)), dtype=object)
        frame["symbol"] = symbols[g[order]]
    return pd.DataFrame(frame)


def ranking(result: DEResult, t: int, by: str) -> pandas.Series:
    """See :meth:`.results.memory.DEResult.ranking`."""
    import pandas as pd

    values = _values(result, by, slice(t, t + 1))[0]
    there = np.flatnonzero(~np.isnan(values))
    means = {name: result[name][t] for name in DIFFERENCE.reads}
    change = np.nan_to_num(mean_difference(means))
    order = there[np.lexsort((-change[there], -values[there]))]
    names = pd.Index([str(result.features[g]) for g in order], name="feature")
    return pd.Series(values[order], index=names, name=by)


def _values(result: DEResult, column: str, part: slice) -> np.ndarray:
    """Return a stored or derived column for some comparisons; NaN at pairs not kept."""
    if not isinstance(column, str) or column not in (SIGNED, *result.columns):
        raise OptionError(unknown("column", column, (SIGNED, *result.columns)))
    if column == SIGNED:
        values = _signed_log10_p(result, part)
    else:
        values = result[column][part].astype(np.float64)
    if result.kept is not None:
        values = np.where(result.kept[part], values, np.nan)
    return values


def _signed_log10_p(result: DEResult, part: slice) -> np.ndarray:
    """Return -log10 p with the sign of the change in the mean."""
    if "log10_p" in result.columns:
        log10_p = result["log10_p"][part]
    else:
        with np.errstate(divide="ignore"):
            log10_p = np.maximum(np.log10(result["p_value"][part]), _SMALLEST)
    means = {name: result[name][part] for name in DIFFERENCE.reads}
    return np.abs(log10_p) * np.sign(mean_difference(means))


def _names(result: DEResult) -> list[str]:
    return [result.name(t) for t in range(len(result.targets))]


def _category(labels: np.ndarray) -> Any:
    import pandas as pd

    text = [str(label) for label in labels]
    return pd.Categorical(text, categories=list(dict.fromkeys(text)))
