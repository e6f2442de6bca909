"""The rule "ve-reduction": what CPUID answers a guest that asked for fewer #VEs (TD_CTLS.REDUCE_VE).

It came with 1.5.28 at the latest. Until the guest asks, some bits read 1 whatever was configured, and every leaf
without a value raises #VE. From then on the features in FEATURE_PARAVIRT_CTRL read 0 unless the guest wants them.
"""

from __future__ import annotations

from collections.abc import Iterator

from plugin.cpuid import ZERO, Bit, Leaf, Registers
from plugin.tdx_module.cause import Cause
from plugin.tdx_module.rules.asking import REDUCE_VE, Asking, Shown

_TOPOLOGY = (0xB, 0x1F)


def instead(asking: Asking) -> Registers | None:
    """Answer a leaf of which the TD holds no value; None = #VE."""
    if REDUCE_VE not in asking.td_ctls:
        return None
    if asking.number in _TOPOLOGY:
        return Registers(ecx=asking.subleaf & 0xFF, edx=asking.apic_id)
    gate = asking.rules.faulting.get(asking.number)
    seen = gate in asking.paravirt and any(bit.of(asking.held) for bit in asking.rules.gated[gate])
    return None if seen else ZERO


def shown(asking: Asking, stored: Registers) -> Iterator[Shown]:
    """Say what of a leaf is not as the TD holds it."""
    reduced = REDUCE_VE in asking.td_ctls
    if not reduced:
        for bit in asking.rules.on_before:
            if _is_here(bit, asking):
                mask = _mask(bit)
                yield Shown(mask, mask, Cause("td-ctls", REDUCE_VE))
        return
    for gate, bits in asking.rules.gated.items():
        if gate not in asking.paravirt:
            for bit in bits:
                if _is_here(bit, asking):
                    yield Shown(_mask(bit), ZERO, Cause("paravirt", gate))
    leaf = Leaf(asking.number, asking.subleaf)
    if leaf in asking.rules.native:
        yield Shown(asking.rules.native[leaf], asking.native.get(leaf, stored), Cause("td-ctls", REDUCE_VE))


def _is_here(bit: Bit, asking: Asking) -> bool:
    return bit.leaf.number == asking.number and bit.leaf.subleaf in (None, asking.subleaf)


def _mask(bit: Bit) -> Registers:
    return ZERO.with_(bit.register, 1 << bit.position)
