"""Who decided a bit: from the module's model where it is known, else from the evidence alone.

The layers are asked in the order in which they act: QEMU drops, KVM filters, the module decides.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from plugin.cpuid import ZERO, Bit, Cpuid, Leaf
from plugin.tdx_module import ModuleVersion, Td
from plugin.tdx_module.cause import CONFIGURED

INFERRED = " (inferred)"


class Evidence(NamedTuple):
    """All that the conversation with QEMU showed about one TD."""

    requested: Cpuid
    dropped: Cpuid
    """What QEMU took away from the request before KVM saw it."""
    configurable: Cpuid
    """The bits that KVM let userspace choose."""
    chosen: Cpuid
    actual: Cpuid


class Judge(Protocol):
    """Says who decided a bit."""

    def readable(self) -> Cpuid:
        """What KVM is known to be able to read from the TD; empty when nothing is known."""

    def ve_until(self, leaf: Leaf) -> str:
        """The TD_CTLS bit that the guest must set before this leaf stops raising #VE; empty for most leaves."""

    def cause(self, bit: Bit, evidence: Evidence) -> str:
        """The cause in words: one of ``plugin.tdx_module.cause``, or who acts before the module (QEMU, KVM)."""


class ModuleJudge:
    """Knows the module's tables: every cause is certain, as long as the TD is what the tables predict."""

    def __init__(self, module: ModuleVersion, td: Td, kvm_filtered: Cpuid) -> None:
        self._module = module
        self._td = td
        self._kvm_filtered = kvm_filtered

    def readable(self) -> Cpuid:
        """The TD's leaves up to the maximum of the basic and of the extended range."""
        cpuid = self._td.cpuid
        last = {first: cpuid[Leaf(first)].eax for first in (0x0, 0x80000000)}
        return {leaf: value for leaf, value in cpuid.items() if leaf.number <= last[leaf.number & 0x80000000]}

    def ve_until(self, leaf: Leaf) -> str:
        """What the tables say about #VE reduction."""
        return self._module.guest.ve_until.get(leaf.number, "")

    def cause(self, bit: Bit, evidence: Evidence) -> str:
        """The cause of a bit's value in the TD."""
        got = bit.of(evidence.actual)
        if bit.of(evidence.dropped) and not got:
            return "qemu-dropped"
        if _is_set(bit, evidence.configurable) and not _is_set(bit, self._module.configurable):
            return "configured"  # KVM's own, such as the guest address width
        cause = self._td.cause(bit)
        if got is not None and bit.of(self._td.cpuid) != got:
            return f"not as module {self._module.name} would have it ({cause})"
        if cause == CONFIGURED and not _is_set(bit, evidence.configurable):
            return "kvm-filtered" if _is_set(bit, self._kvm_filtered) else "kvm-unknown"
        return str(cause)


class EvidenceJudge:
    """Knows no tables, as on real hardware: says what the evidence allows, and that it is inferred."""

    def readable(self) -> Cpuid:
        """Nothing is known."""
        return {}

    def ve_until(self, leaf: Leaf) -> str:
        """Nothing is known."""
        return ""

    def cause(self, bit: Bit, evidence: Evidence) -> str:
        """The likely cause of a bit's value in the TD."""
        got = bit.of(evidence.actual)
        if bit.of(evidence.dropped) and not got:
            return "qemu-dropped"
        if _is_set(bit, evidence.configurable):
            if got == bit.of(evidence.chosen):
                return "configured"
            return ("fixed-1" if got else "native or xfam") + INFERRED
        return ("fixed-1 or native" if got else "fixed-0, native or kvm-unknown") + INFERRED


def _is_set(bit: Bit, masks: Cpuid) -> bool:
    return bool(masks.get(bit.leaf, ZERO).get(bit.register) >> bit.position & 1)
