"""The special cases of TDH.MNG.INIT and of the guest's CPUID instruction, each a named rule.

A module version lists the rules it has by name, in the order they apply; a version without a rule does not list it. The
names are in `rules.table`. Rules change values only through :class:`~plugin.tdx_module.draft.Draft`, which records why.
"""

from __future__ import annotations

from plugin.cpuid import Leaf
from plugin.tdx_module.draft import Draft
from plugin.tdx_module.module import ModuleVersion
from plugin.tdx_module.platform import Platform
from plugin.typing import NamedTuple


class Setup(NamedTuple):
    """What a rule can look at: the call's inputs, and the leaves computed so far."""

    module: ModuleVersion
    platform: Platform
    attributes: int
    xfam: int
    tsc_25mhz: int
    drafts: dict[Leaf, Draft]

    def bit(self, leaf: Leaf, index: int, position: int) -> bool:
        """Tell whether the TD has a bit, False when the module has no such leaf."""
        draft = self.drafts.get(leaf)
        return draft is not None and bool(draft.get(index) >> position & 1)
