"""The rule "ve-reduction": what CPUID answers a guest that asked for fewer #VEs (TD_CTLS.REDUCE_VE).

It came with 1.5.28 at the latest. Until the guest asks, nothing is as it was configured for four bits of EDX, and every
leaf without a value raises #VE.
"""

from collections.abc import Collection

from plugin.cpuid import ZERO, Bit, Cpuid, Leaf, Registers

REDUCE_VE = "REDUCE_VE"

PARAVIRTUALISED = {
    0x9: Bit(Leaf(1), "ecx", 18),
    0xF: Bit(Leaf(7, 0), "ebx", 12),
    0x10: Bit(Leaf(7, 0), "ebx", 15),
    0x1B: Bit(Leaf(7, 0), "edx", 18),
}
"""Leaves that go on raising #VE while the TD has the feature they describe: DCA, RDT-M, RDT-A, PCONFIG."""

ALWAYS_ON = {1: 1 << 7 | 1 << 12 | 1 << 14, 7: 1 << 30}
"""EDX of leaf 1: MCE, MTRR, MCA; EDX of 0x7.0: IA32_CORE_CAPABILITIES."""


def answer(cpuid: Cpuid, leaf: int, subleaf: int, td_ctls: Collection[str], apic_id: int) -> Registers | None:
    """Answer a leaf that is not in the module's table; None = #VE. ``cpuid`` is the TD's."""
    if REDUCE_VE not in td_ctls or 0x40000000 <= leaf <= 0x4FFFFFFF:
        return None
    if leaf in (0xB, 0x1F):
        return Registers(ecx=subleaf & 0xFF, edx=apic_id)
    feature = PARAVIRTUALISED.get(leaf)
    return None if feature and feature.of(cpuid) else ZERO


def always_on(leaf: Leaf, td_ctls: Collection[str]) -> int:
    """EDX bits that read 1 whatever is stored, until #VE is reduced."""
    first = leaf.number != 7 or not leaf.subleaf
    return ALWAYS_ON.get(leaf.number, 0) if first and REDUCE_VE not in td_ctls else 0
