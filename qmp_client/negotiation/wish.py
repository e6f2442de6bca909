"""What the user wants of the TD, beside the machine."""

from __future__ import annotations

from typing import NamedTuple

from plugin.cpuid import Leaf, Registers


class Wish(NamedTuple):
    """How to choose; the default follows the ``-cpu`` model in everything."""

    policy: str = "model"
    """A name in ``choose.POLICIES``; ignored when there are entries."""
    entries: dict[Leaf, Registers] | None = None
    """Exactly these choices, from ``--choose FILE``."""
    source: str = "model"
    """How the report names where the choice came from."""
    attributes: int | None = None
    """64 bits; None lets them follow from the model."""
    xfam: int | None = None
