"""Comparing two module versions bit by bit. Pure.

The three guarantees are those that were proposed on the kernel's list in 2024, so that a module update would not
change a TD under a VMM that stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

import msgspec

from plugin.cpuid import REGISTERS, Bit, Leaf, Register
from plugin.cpuid.fields import field_at, named_fields_of
from plugin.tdx_module import ModuleVersion, Platform, attribute_names, xfam_names
from plugin.tdx_module.classes import FIXED_0, FIXED_1, NATIVE, VE, BitClass, classes_of
from plugin.tdx_module.guests import TD, Guest
from qmp_client.contract import sight
from qmp_client.contract.sight import Sights

ModelsOf = Callable[[Bit], Sequence[str]]
"""Which of QEMU's -cpu models ask for a bit."""


class Guarantee(StrEnum):
    """What a module update should not do."""

    FIXED_STAYS = "no fixed-1 bit turns configurable without an opt-in"
    NOTHING_APPEARS = "no new default-on or fixed-1 bit appears"
    STAYS_CONFIGURABLE = "what a VMM could configure stays configurable"


class Change(msgspec.Struct, frozen=True, rename="kebab"):
    """One bit whose class is another one in the newer version."""

    leaf: int
    subleaf: int | None
    register: Register
    position: int
    name: str
    """QEMU's name, else the field's; empty when the bit has none."""
    before: str
    after: str
    breaks: tuple[Guarantee, ...]
    off_unless_set: bool
    """The bit could be on without the VMM's doing, and now is off for a VMM that does not set it."""
    critical: bool
    """KVM's own emulation relies on the bit."""
    models: tuple[str, ...]
    """QEMU's -cpu models that ask for it."""

    @property
    def bit(self) -> Bit:
        """The bit."""
        return Bit(Leaf(self.leaf, self.subleaf), self.register, self.position)


class Difference(msgspec.Struct, frozen=True):
    """What came and what went of some named things."""

    gained: tuple[str, ...]
    lost: tuple[str, ...]


class Contract(msgspec.Struct, frozen=True):
    """The difference between two module versions."""

    old: str
    new: str
    platform: str | None
    changes: tuple[Change, ...]
    attributes: Difference
    xfam: Difference
    rules: Difference
    sights: Sights = Sights(TD.name)
    """What a guest sees no more, or anew."""

    def broken(self, guarantee: Guarantee) -> list[Change]:
        """The changes that break a guarantee."""
        return [change for change in self.changes if guarantee in change.breaks]

    @property
    def kept(self) -> bool:
        """Whether all guarantees hold."""
        return not any(change.breaks for change in self.changes)


def no_models(bit: Bit) -> Sequence[str]:
    """Know no model."""
    del bit
    return ()


def compare(
    old: ModuleVersion,
    new: ModuleVersion,
    platform: Platform | None = None,
    models: ModelsOf = no_models,
    guest: Guest = TD,
) -> Contract:
    """List what changes from one version to another, on any processor or on the given one, and for a guest.

    On a given processor a native bit that it lacks does not appear, and one that it has does not appear by becoming
    fixed-1. The changed classes are listed all the same.
    """
    leaves = sorted(old.rows.keys() | new.rows.keys(), key=lambda leaf: leaf.order)
    return Contract(
        old.name,
        new.name,
        platform.name if platform else None,
        tuple(change for leaf in leaves for change in _changes(old, new, leaf, platform, models)),
        _difference(
            attribute_names(_attributes(old, platform)),
            attribute_names(_attributes(new, platform)),
        ),
        _difference(xfam_names(_xfam(old, platform)), xfam_names(_xfam(new, platform))),
        _difference(old.rules, new.rules),
        sight.compare(guest, old, new, platform),
    )


def _changes(
    old: ModuleVersion, new: ModuleVersion, leaf: Leaf, platform: Platform | None, models: ModelsOf
) -> Iterator[Change]:
    for place, (before, after) in enumerate(zip(classes_of(old, leaf), classes_of(new, leaf), strict=True)):
        if before == after:
            continue
        bit = Bit(leaf, REGISTERS[place // 32], place % 32)
        field = field_at(bit)
        number = field is not None and field.width > 1
        yield Change(
            leaf=leaf.number,
            subleaf=leaf.subleaf,
            register=bit.register,
            position=bit.position,
            name=field.qemu_name or field.name if field else "",
            before=str(before),
            after=str(after),
            breaks=tuple(_broken(bit, before, after, platform, number=number)),
            off_unless_set=after.choosable and not (before.choosable or number or before.kind in (FIXED_0, VE)),
            critical=field is not None and field.kvm_critical,
            models=tuple(models(bit)),
        )


def _broken(
    bit: Bit, before: BitClass, after: BitClass, platform: Platform | None, *, number: bool
) -> Iterator[Guarantee]:
    """Say which guarantees a change breaks. The bits of a ``number`` are no features: none can appear on its own."""
    if before.kind == FIXED_1 and after.choosable and not number:
        yield Guarantee.FIXED_STAYS
    if not number and _appears(bit, before, after, platform):
        yield Guarantee.NOTHING_APPEARS
    if before.choosable and not after.choosable:
        yield Guarantee.STAYS_CONFIGURABLE


def _appears(bit: Bit, before: BitClass, after: BitClass, platform: Platform | None) -> bool:
    """Whether a TD has the bit that before did not, or had only by the VMM's choice or on some processors.

    On any processor, a reserved bit of a known leaf is taken to be 0 where it is native. A bit that needs something
    else, which the VMM chooses, does not appear on its own.
    """
    if after.kind == before.kind or after.kind not in (FIXED_1, NATIVE) or after.gate:
        return False
    if platform is None:
        return after.kind == FIXED_1 or (
            before.kind != FIXED_1 and (field_at(bit) is not None or not named_fields_of(bit.leaf))
        )
    there = platform.native_leaf(bit.leaf).get(bit.register) >> bit.position & 1
    if after.kind == NATIVE:
        return bool(there) and before.kind != FIXED_1
    return not (before.kind == NATIVE and there)


def _attributes(module: ModuleVersion, platform: Platform | None) -> int:
    return module.attributes_supported if platform is None else module.attributes_on(platform)


def _xfam(module: ModuleVersion, platform: Platform | None) -> int:
    return module.xfam_mask if platform is None else module.xfam_supported(platform)


def _difference(old: Sequence[str], new: Sequence[str]) -> Difference:
    return Difference(
        tuple(name for name in new if name not in old),
        tuple(name for name in old if name not in new),
    )
