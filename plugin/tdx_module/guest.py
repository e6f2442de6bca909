"""What the CPUID instruction answers in the guest, as opposed to what the TD holds.

The TD's values (TDCS.CPUID_VALUES, what KVM_TDX_GET_CPUID reads) are one part of it. The guest's own controls and the
module's rules about them are the other. Bits that depend on the moment are left to :meth:`Td.execute`.
"""

from __future__ import annotations

from plugin.cpuid import ZERO, Cpuid, Leaf, Registers
from plugin.tdx_module.cause import Cause
from plugin.tdx_module.module import GuestRules, ModuleVersion
from plugin.tdx_module.rules.asking import ENUM_TOPOLOGY, REDUCE_VE, VIRT_CPUID2, Asking, Shown
from plugin.tdx_module.rules.table import execution_rules
from plugin.typing import NamedTuple

SUPERVISOR_VE = "CPUID_SUPERVISOR_VE"
TOPOLOGY = (0xB, 0x1F)
PARAVIRTUAL = range(0x40000000, 0x50000000)
"""Leaves that no processor has: CPUID raises #VE there in every TD, for a hypervisor to talk to its guest."""


class Controls(NamedTuple):
    """What a guest has set of its own virtualization."""

    td_ctls: frozenset[str] = frozenset()
    """TDCS.TD_CTLS: ``ENUM_TOPOLOGY``, ``VIRT_CPUID2``, ``REDUCE_VE``."""
    paravirt: frozenset[str] = frozenset()
    """TDCS.FEATURE_PARAVIRT_CTRL, by the names in ``GuestRules.gated``; without effect until REDUCE_VE."""
    supervisor_ve: bool = False
    """TDVPS.CPUID_SUPERVISOR_VE: every CPUID of the guest's kernel raises #VE."""
    user_ve: bool = False
    """TDVPS.CPUID_USER_VE: every CPUID of its programs does."""


class Answer(NamedTuple):
    """What CPUID answers."""

    registers: Registers | None
    """None: #VE."""
    causes: tuple[Shown, ...] = ()
    """What is not as the TD holds it, and why; for a #VE, and for a leaf that the TD does not hold, the reason."""


def settled(rules: GuestRules, wanted: Controls) -> Controls:
    """What a module makes of it: what it does not have cannot be set, and REDUCE_VE sets the other two as well."""
    td_ctls = wanted.td_ctls & rules.td_ctls
    if REDUCE_VE not in td_ctls:
        return wanted._replace(td_ctls=td_ctls, paravirt=frozenset())
    return wanted._replace(
        td_ctls=td_ctls | {ENUM_TOPOLOGY, VIRT_CPUID2}, paravirt=wanted.paravirt & rules.gated.keys()
    )


def answer(
    module: ModuleVersion, held: Cpuid, native: Cpuid, controls: Controls, leaf: Leaf, *, apic_id: int = 0
) -> Answer:
    """Answer CPUID in the guest's kernel, from what the TD holds.

    ``native`` are the processor's values as the module samples them, for what is native with REDUCE_VE; a leaf that is
    missing there stays as it is held. ``controls`` are settled. A leaf above the maximum of the basic or extended range
    is treated as the highest basic leaf.
    """
    number, subleaf = leaf.number, leaf.subleaf or 0
    if number in PARAVIRTUAL:
        return _ve("paravirtual")
    if controls.supervisor_ve:
        return _ve(SUPERVISOR_VE)
    last = {first: held.get(Leaf(first), ZERO).eax for first in (0x0, 0x80000000)}
    if number > last[0x80000000] or last[0x0] < number < 0x80000000:
        number = last[0x0]
    asking = Asking(module.guest, held, native, controls.td_ctls, controls.paravirt, number, subleaf, apic_id)
    rules = execution_rules(module)
    stored = asking.stored
    if stored is None:
        found = next((found for rule in rules if (found := rule.instead(asking)) is not None), None)
        if found is None:
            return _ve(REDUCE_VE if rules else "")
        return Answer(found, (Shown(Registers(*(0xFFFFFFFF,) * 4), found, Cause("td-ctls", REDUCE_VE)),))
    needed = ENUM_TOPOLOGY if number in TOPOLOGY else module.guest.ve_until.get(number)
    if needed and needed not in controls.td_ctls:
        return _ve(needed)
    shown = [one for rule in rules for one in rule.shown(asking, stored)]
    for mask, value, _ in shown:
        stored = stored.without(mask) | value & mask
    return Answer(stored, tuple(shown))


def _ve(waits_for: str) -> Answer:
    return Answer(None, (Shown(ZERO, ZERO, Cause("ve", waits_for)),))
