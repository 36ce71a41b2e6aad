"""The UMIs of guides in several files as those of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...design.labels import object_array
from ...errors import listing
from ..dataset import GuideCounts


def stack_guides(found: Sequence[GuideCounts | None], n_cells: Sequence[int]) -> GuideCounts | None:
    """Return the UMIs of guides in the cells of all files; guides are joined by their ids.

    Parameters
    ----------
    found : sequence of GuideCounts or None
        Those of each file; None for a file that counts no guides, whose cells have none.
    n_cells : sequence of int
        Cells of each file.

    Returns
    -------
    GuideCounts or None
        None if no file counts guides.
    """
    starts = np.cumsum([0, *n_cells[:-1]])
    counted = [(start, one) for start, one in zip(starts, found, strict=True) if one is not None]
    if not counted:
        return None
    names: dict[str, str] = {}
    for _, one in counted:
        for guide, name in zip(one.ids.tolist(), one.names.tolist(), strict=True):
            names.setdefault(guide, name)
    place = {guide: i for i, guide in enumerate(names)}
    guides = [
        np.array([place[guide] for guide in one.ids.tolist()], np.int64)[one.guides]
        for _, one in counted
    ]
    return GuideCounts(
        object_array(names),
        object_array(names.values()),
        np.concatenate([start + one.cells for start, one in counted]),
        np.concatenate(guides),
        np.concatenate([one.umis for _, one in counted]),
        listing([one.place for _, one in counted], limit=3),
    )
