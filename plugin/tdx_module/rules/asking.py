"""A guest that executes CPUID, as rules see it."""

from __future__ import annotations

from plugin.cpuid import Cpuid, Leaf, Registers
from plugin.tdx_module.cause import Cause
from plugin.tdx_module.module import GuestRules
from plugin.typing import NamedTuple

ENUM_TOPOLOGY, VIRT_CPUID2, REDUCE_VE = "ENUM_TOPOLOGY", "VIRT_CPUID2", "REDUCE_VE"
"""Bits of TDCS.TD_CTLS."""
TD_CTLS = (ENUM_TOPOLOGY, VIRT_CPUID2, REDUCE_VE)


class Asking(NamedTuple):
    """One CPUID instruction: what is asked, and what the answer can depend on."""

    rules: GuestRules
    held: Cpuid
    """The TD's own values."""
    native: Cpuid
    td_ctls: frozenset[str]
    paravirt: frozenset[str]
    number: int
    subleaf: int
    apic_id: int

    @property
    def stored(self) -> Registers | None:
        """The TD's value of the leaf; None when it has none."""
        return self.held.get(Leaf(self.number, self.subleaf)) or self.held.get(Leaf(self.number))


class Shown(NamedTuple):
    """Bits that are not as the TD holds them."""

    mask: Registers
    value: Registers
    cause: Cause
