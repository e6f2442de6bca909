"""What a guest sees under one module version and not under another, whatever its VMM does. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from plugin.cpuid import REGISTERS, ZERO, Bit, Leaf
from plugin.cpuid.fields import field_at
from plugin.cpuid.linux import flags_of
from plugin.tdx_module import ModuleVersion, Platform
from plugin.tdx_module.classes import CONFIGURABLE, DYNAMIC, FIXED_0, FIXED_1, NATIVE, VE, classes_of
from plugin.tdx_module.guest import TOPOLOGY, Controls, settled
from plugin.tdx_module.guests import ZEROS, Guest
from plugin.tdx_module.rules.asking import ENUM_TOPOLOGY, REDUCE_VE

UNKNOWN = "the VMM's answer"


class Sight(NamedTuple):
    """What a guest can see of a bit."""

    said: str
    ever: bool
    """It is 1 in some TD."""
    always: bool = False
    """It is 1 in every TD."""


class Change(msgspec.Struct, frozen=True, rename="kebab"):
    """A feature that the guest sees with one version only."""

    leaf: int
    subleaf: int | None
    register: str
    position: int
    name: str
    before: str
    after: str
    certain: bool
    """Every guest saw it (or does now), not only where a VMM configures it."""


class Sights(msgspec.Struct, frozen=True):
    """How an update changes what a guest sees, with VMM and guest as they are."""

    guest: str
    lost: tuple[Change, ...] = ()
    gained: tuple[Change, ...] = ()
    answered: tuple[str, ...] = ()
    """Leaves that raised #VE before and have an answer of the module's now."""


def compare(guest: Guest, old: ModuleVersion, new: ModuleVersion, platform: Platform | None = None) -> Sights:
    """Compare feature by feature. Fields of several bits are numbers, and none of them is lost."""
    if guest.is_td:
        return Sights(guest.name)
    leaves = sorted(old.rows.keys() | new.rows.keys(), key=lambda leaf: leaf.order)
    lost: list[Change] = []
    gained: list[Change] = []
    for leaf in leaves:
        for bit, name in _features(leaf):
            before, after = (sight(guest, module, bit, platform) for module in (old, new))
            if UNKNOWN in (before.said, after.said):
                continue
            if before.ever and not after.ever:
                lost.append(_change(bit, name, before, after, certain=before.always))
            elif after.ever and not before.ever:
                gained.append(_change(bit, name, before, after, certain=after.always))
    answered = [str(leaf) for leaf in leaves if _raises(guest, old, leaf) and not _raises(guest, new, leaf)]
    return Sights(guest.name, tuple(lost), tuple(gained), tuple(answered))


def _features(leaf: Leaf) -> Iterator[tuple[Bit, str]]:
    """The bits that software looks for: those with a name in QEMU or in Linux."""
    for register in REGISTERS:
        for n in range(32):
            field = field_at(bit := Bit(leaf, register, n))
            if field is None or field.width > 1 or field.dynamic:
                continue
            if field.qemu_name or flags_of(bit):
                yield bit, field.qemu_name or field.name


def _change(bit: Bit, name: str, before: Sight, after: Sight, *, certain: bool) -> Change:
    number, subleaf = bit.leaf
    return Change(number, subleaf, bit.register, bit.position, name, before.said, after.said, certain)


def _raises(guest: Guest, module: ModuleVersion, leaf: Leaf) -> bool:
    """Whether CPUID of a leaf raises #VE in this guest."""
    controls = settled(module.guest, guest.controls)
    if REDUCE_VE in controls.td_ctls:
        gate = module.guest.faulting.get(leaf.number)
        return gate is not None and gate in controls.paravirt
    row = module.row_of(leaf)
    return row is None or row.ve or _needed(module, leaf) not in ("", *controls.td_ctls)


def _needed(module: ModuleVersion, leaf: Leaf) -> str:
    return ENUM_TOPOLOGY if leaf.number in TOPOLOGY else module.guest.ve_until.get(leaf.number, "")


def sight(guest: Guest, module: ModuleVersion, bit: Bit, platform: Platform | None) -> Sight:
    """What this guest can see of a bit under a version, on any processor or on the given one."""
    rules = module.guest
    controls = settled(rules, guest.controls)
    if _raises(guest, module, bit.leaf):
        return Sight("0 (the guest answers)", ever=False) if guest.answers_ve(bit.leaf.number) == ZEROS else _UNKNOWN
    native = True if platform is None else _native(platform, bit)
    if REDUCE_VE in controls.td_ctls:
        if (hidden := _hidden(module, bit, controls)) is not None:
            return hidden
        if rules.native.get(bit.leaf, ZERO).get(bit.register) >> bit.position & 1:
            return Sight(f"native (td-ctls.{REDUCE_VE})", ever=native, always=native)
    elif bit in rules.on_before:
        return Sight(f"1 (td-ctls.{REDUCE_VE})", ever=True, always=True)
    if module.row_of(bit.leaf) is None:
        return Sight("0", ever=False)
    kind = classes_of(module, bit.leaf)[REGISTERS.index(bit.register) * 32 + bit.position]
    if kind.kind == VE:  # it has a value: what it waits for has been set
        fixed = bool(module.rows[bit.leaf].fixed1.get(bit.register) >> bit.position & 1)
        return Sight(FIXED_1 if fixed else FIXED_0, ever=fixed, always=fixed)
    ever = kind.kind in (FIXED_1, DYNAMIC, CONFIGURABLE) or (kind.kind != FIXED_0 and native)
    always = kind.kind == FIXED_1 or (kind.kind == NATIVE and native and not kind.gate)
    return Sight(str(kind), ever, always)


_UNKNOWN = Sight(UNKNOWN, ever=False)


def _hidden(module: ModuleVersion, bit: Bit, controls: Controls) -> Sight | None:
    for gate, bits in module.guest.gated.items():
        if bit in bits and gate not in controls.paravirt:
            return Sight(f"0 (paravirt.{gate})", ever=False)
    return None


def _native(platform: Platform, bit: Bit) -> bool:
    return bool(platform.native_leaf(bit.leaf).get(bit.register) >> bit.position & 1)
