"""The kinds of cells that targets are compared with. Needs no numpy: the command line reads it."""

from __future__ import annotations

from enum import Enum


class Against(Enum):
    """The cells that each target of a contrast is compared with.

    ==============  ==================================================  ===============
    member          each target is compared with                        targets
    ==============  ==================================================  ===============
    ``REFERENCE``   the first of the contrast's groups                  ``groups[1:]``
    ``REST``        all the other groups together                       ``groups``
    ``COMPLEMENT``  the cells of the first of the groups that are not   ``groups[1:]``
                    its own: the first holds every cell once, the
                    targets hold theirs again (targets may overlap)
    ==============  ==================================================  ===============
    """

    REFERENCE = "reference"
    REST = "rest"
    COMPLEMENT = "complement"
