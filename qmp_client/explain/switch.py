"""How a QEMU user turns a bit of a TD on or off, as far as its class lets him. Pure."""

from __future__ import annotations

from typing import NamedTuple

from plugin.cpuid import Bit
from plugin.tdx_module import attribute_bit
from plugin.tdx_module.classes import ALLOW, DYNAMIC, FIXED_0, FIXED_1, NATIVE, VE, BitClass
from plugin.tdx_module.names import XFAM

STATE_FEATURES = {
    2: "avx",
    5: "avx512f",
    6: "avx512f",
    7: "avx512f",
    8: "intel-pt",
    9: "pku",
    11: "shstk",
    12: "shstk",
    15: "arch-lbr",
    17: "amx-tile",
    18: "amx-tile",
}
"""XFAM bits that QEMU derives from a -cpu feature (its table of extended state areas)."""

BY_FEATURE = {"PKS": ("pks=on", "pks=off"), "PERFMON": ("pmu=on", "pmu=off")}
"""ATTRIBUTES bits that QEMU derives from a CPU property."""


class Switch(NamedTuple):
    """What to write to have a bit, and to not have it; or why that cannot be."""

    on: str
    off: str


def switch(kind: BitClass, bit: Bit, qemu_name: str, *, hidden: bool, single: bool) -> Switch:
    """Say how to set and clear a bit (``single``), or the field that begins with it."""
    if kind.choosable:
        return _chosen(kind, bit, qemu_name, hidden=hidden, single=single)
    match kind.kind:
        case "xfam":
            return _by_state(int(kind.detail))
        case "attributes":
            return _by_attribute(kind.detail)
        case "module-rule":
            return _impossible(f"the module computes it (rule {kind.detail})")
    reasons = {
        FIXED_0: "the module clears it in every TD",
        FIXED_1: "the module sets it in every TD",
        NATIVE: "it is the processor's own, and nobody can choose",
        DYNAMIC: "the module computes it as the guest asks",
        VE: "the leaf raises #VE; the VMM answers, with what KVM_SET_CPUID2 was given",
    }
    if kind.kind == VE and kind.detail:
        return _impossible(f"the leaf raises #VE until the guest sets TD_CTLS.{kind.detail}")
    return _impossible(reasons[kind.kind])


def _chosen(kind: BitClass, bit: Bit, qemu_name: str, *, hidden: bool, single: bool) -> Switch:
    if hidden:
        return Switch("not possible: KVM does not let a VMM choose it", "it is off: KVM does not let a VMM choose it")
    if kind.gate.startswith("module-rule"):
        return _impossible(
            f"the VMM's value is checked or replaced by the module's rule {kind.gate.partition(': ')[2]}"
        )
    needs = []
    if kind.kind == ALLOW:
        needs.append("where the processor has it")
    if kind.gate:
        needs.append(f"and {kind.gate}")
    suffix = f" ({' '.join(needs)})" if needs else ""
    if not qemu_name or not single:
        word = f"negotiate --choose FILE, with {bit.leaf} {bit.register}"
        return Switch(f"{word}: QEMU's -cpu has no feature for it{suffix}", word)
    return Switch(f"-cpu host,+{qemu_name}{suffix}", f"-cpu host,-{qemu_name}")


def _by_state(number: int) -> Switch:
    state = f"XFAM[{number}] {XFAM.get(number, '')}".rstrip()
    feature = STATE_FEATURES.get(number)
    if feature is None:
        return Switch(
            f"negotiate --xfam with {state}, where processor and KVM have it", f"negotiate --xfam without {state}"
        )
    return Switch(
        f"-cpu host,+{feature} (it follows {state}), where processor and KVM have it",
        f"-cpu host,-{feature} (it follows {state})",
    )


def _by_attribute(name: str) -> Switch:
    if name in BY_FEATURE:
        on, off = BY_FEATURE[name]
        return Switch(f"-cpu host,{on} (it is ATTRIBUTES.{name})", f"-cpu host,{off}")
    word = f"negotiate --attributes, bit {attribute_bit(name)} ({name})"
    return Switch(f"{word} = 1", f"{word} = 0")


def _impossible(why: str) -> Switch:
    return Switch(f"not possible: {why}", f"not possible: {why}")
