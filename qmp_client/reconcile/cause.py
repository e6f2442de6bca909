"""Who decided a bit: from the module's model where it is known, else from the evidence alone.

The layers are asked in the order in which they act: QEMU drops, KVM filters, the module decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from plugin.cpuid import ZERO, Bit, Cpuid, Leaf, Registers, spelled_like
from plugin.cpuid.fields import Field
from plugin.kvm.policy import ADDED_CPUID, SUPPORTED_TD_ATTRS, UNSUPPORTED_CPUID, WIDTHS
from plugin.tdx_module import ModuleVersion, Platform, Td
from plugin.tdx_module.cause import CONFIGURED
from plugin.tdx_module.classes import CONFIGURABLE, NATIVE, class_of
from plugin.tdx_module.reach import Offer, Reach

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

    def cause(self, bit: Bit, evidence: Evidence) -> str:
        """The cause in words: one of ``plugin.tdx_module.cause``, or who acts before the module (QEMU, KVM)."""

    def possible(self, leaf: Leaf, field: Field, value: int, evidence: Evidence) -> bool:
        """Whether any choice, XFAM, ATTRIBUTES or ``-cpu`` gives some TD here this value of a field."""

    def since(self, leaf: Leaf, field: Field, value: int) -> str:
        """The module version from which on a VMM that asks for this value gets it; empty where none is known."""

    def states(self) -> int:
        """The XFAM bits that a TD may have here; 0 where that is not known."""


class ModuleJudge:
    """Knows the module's tables: every cause is certain, as long as the TD is what the tables predict."""

    def __init__(self, module: ModuleVersion, td: Td, kvm_filtered: Cpuid, newer: Sequence[ModuleVersion] = ()) -> None:
        """``newer`` are the known versions after this one, in their order."""
        self._module = module
        self._td = td
        self._kvm_filtered = kvm_filtered
        self._newer = newer

    def readable(self) -> Cpuid:
        """The TD's leaves up to the maximum of the basic and of the extended range."""
        cpuid = self._td.cpuid
        last = {first: cpuid[Leaf(first)].eax for first in (0x0, 0x80000000)}
        return {leaf: value for leaf, value in cpuid.items() if leaf.number <= last[leaf.number & 0x80000000]}

    def cause(self, bit: Bit, evidence: Evidence) -> str:
        """The cause of a bit's value in the TD."""
        got = bit.of(evidence.actual)
        if bit.of(evidence.dropped) and not got:
            return f"qemu-dropped ({self._by_kvm_or_module(bit, got, evidence)})"
        return self._by_kvm_or_module(bit, got, evidence)

    def _by_kvm_or_module(self, bit: Bit, got: int | None, evidence: Evidence) -> str:
        if _is_set(bit, evidence.configurable) and not _is_set(bit, self._module.configurable):
            return "configured"  # KVM's own, such as the guest address width
        cause = self._td.cause(bit)
        if got is not None and bit.of(self._td.cpuid) != got:
            return f"not as module {self._module.name} would have it ({cause})"
        if cause == CONFIGURED and not _is_set(bit, evidence.configurable):
            return "kvm-filtered" if _is_set(bit, self._kvm_filtered) else "kvm-unknown"
        return str(cause)

    def possible(self, leaf: Leaf, field: Field, value: int, evidence: Evidence) -> bool:
        """Found by making other TDs of this module, on this processor, with what KVM offered."""
        if (own := ADDED_CPUID.get(leaf)) and own.get(field.register) & field.mask:
            return value in WIDTHS
        configurable = spelled_like(evidence.configurable, self._module.configurable)
        reach = _reach(self._module, self._td.platform, tuple(configurable.items()))
        return reach.can_be(leaf, field.register, field.mask, value << field.low)

    def since(self, leaf: Leaf, field: Field, value: int) -> str:
        """Look for a version from which on the bit is the VMM's to choose, or always so."""
        found = ""
        if field.width > 1:
            return found
        bit = Bit(leaf, field.register, field.low)
        for module in reversed(self._newer):
            if not self._gives(module, bit, value):
                break
            found = module.name
        return found

    def _gives(self, module: ModuleVersion, bit: Bit, value: int) -> bool:
        platform = self._td.platform
        kind = class_of(module, bit)
        if kind.choosable:
            hidden = _is_set(bit, UNSUPPORTED_CPUID) or kind.gate.startswith("module-rule")
            native = platform.native_leaf(bit.leaf).get(bit.register) >> bit.position & 1
            gated = kind.gate.startswith("xfam") and not self._td.params.xfam >> int(kind.gate[5:-1]) & 1
            return not hidden and (not value or (bool(native or kind.kind == CONFIGURABLE) and not gated))
        offered = {leaf: mask.without(UNSUPPORTED_CPUID.get(leaf, ZERO)) for leaf, mask in module.configurable.items()}
        reach = _reach(module, platform, tuple(offered.items()))
        mask = 1 << bit.position
        return not reach.can_be(bit.leaf, bit.register, mask, mask * (1 - value))

    def states(self) -> int:
        """What the module and the processor have."""
        return self._module.xfam_supported(self._td.platform)


@lru_cache(maxsize=64)
def _reach(module: ModuleVersion, platform: Platform, configurable: tuple[tuple[Leaf, Registers], ...]) -> Reach:
    return Reach(module, platform, Offer(SUPPORTED_TD_ATTRS, module.xfam_mask, dict(configurable)))


class EvidenceJudge:
    """Knows no tables of this host, as on real hardware: says what the evidence allows, and that it is inferred."""

    def __init__(self, like: ModuleVersion | None = None) -> None:
        """``like`` is a module by which to infer what no TD can have: who controls a bit hardly changes."""
        self._like = like

    def readable(self) -> Cpuid:
        """Nothing is known."""
        return {}

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

    def possible(self, leaf: Leaf, field: Field, value: int, evidence: Evidence) -> bool:
        """What KVM offers, and what follows XFAM or ATTRIBUTES, can be otherwise."""
        if evidence.configurable.get(leaf, ZERO).get(field.register) & field.mask:
            return True
        if self._like is None:
            return False
        kinds = [class_of(self._like, Bit(leaf, field.register, n)) for n in range(field.low, field.high + 1)]
        return any(kind.kind in ("xfam", "attributes") or (kind.kind == NATIVE and kind.gate) for kind in kinds)

    def since(self, leaf: Leaf, field: Field, value: int) -> str:
        """Nothing is known."""
        return ""

    def states(self) -> int:
        """Nothing is known."""
        return 0


def _is_set(bit: Bit, masks: Cpuid) -> bool:
    return bool(masks.get(bit.leaf, ZERO).get(bit.register) >> bit.position & 1)
