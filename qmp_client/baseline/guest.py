"""What a guest sees of CPUID, reduced to what belongs in a baseline. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from plugin.cpuid import REGISTERS, Leaf, Register
from plugin.cpuid.fields import Field, fields_of, named_fields_of
from plugin.cpuid.values import say
from plugin.tdx_module import attribute_names, xfam_names
from plugin.tdx_module.guests import VMM
from qmp_client.report.model import Report

ATTRIBUTES = "attributes"
XFAM = "xfam"


class Seen(NamedTuple):
    """One register as a guest sees it."""

    value: int
    """32 bits, or 64 for ATTRIBUTES and XFAM."""
    by_hypercall: bool = False
    """CPUID raises #VE there, and this is what the VMM answers."""


Guest: TypeAlias = Mapping[str, Seen]
"""Registers by place, as in ``0x7.0.ebx``, and the TD's ``attributes`` and ``xfam``. What is missing is 0."""


class Td(NamedTuple):
    """What is negotiated, but for the machine type and the QEMU binary."""

    kvm: str
    module: str
    platform: str
    smp: str
    cpu: str

    def __str__(self) -> str:
        return f"{self.cpu} (module {self.module}, {self.platform}, smp {self.smp}, {self.kvm})"


def guest(report: Report) -> dict[str, Seen]:
    """The CPUID that the guest of a report sees.

    Fields that depend on the moment or the vCPU (APIC id, OSXSAVE, XSAVE size) are 0, and what nobody knows as well.
    """
    found = {ATTRIBUTES: Seen(report.choice.attributes), XFAM: Seen(report.choice.xfam)}
    for entry in report.guest:
        leaf = spelled(entry.leaf, entry.subleaf)
        for register in REGISTERS:
            value = (getattr(entry, register) or 0) & ~_dynamic(leaf, register)
            found[f"{leaf}.{register}"] = Seen(value, entry.ve == VMM)
    return {place: found[place] for place in sorted(found, key=order) if found[place].value}


def spelled(number: int, subleaf: int | None) -> Leaf:
    """The one way to write a leaf here: with a sub-leaf where CPUID has some, whatever QEMU and KVM call it."""
    if subleaf:
        return Leaf(number, subleaf)
    has_subleaves = any(field.subleaf is not None for field in named_fields_of(Leaf(number, 0)))
    return Leaf(number, 0 if has_subleaves else None)


def parse(place: str) -> tuple[Leaf, Register] | None:
    """The leaf and register of a place; None for ATTRIBUTES and XFAM. Raises ValueError when it is none of these."""
    if place in (ATTRIBUTES, XFAM):
        return None
    leaf, _, register = place.rpartition(".")
    return Leaf.parse(leaf), REGISTERS[REGISTERS.index(register)]


def order(place: str) -> tuple[int, ...]:
    """A sort key: ATTRIBUTES and XFAM first, then leaves and registers."""
    where = parse(place)
    if where is None:
        return (-1, 0 if place == ATTRIBUTES else 1)
    leaf, register = where
    return (*leaf.order, REGISTERS.index(register))


def explain(place: str, value: int) -> str:
    """What a register's value means: the names of the bits that are set, and the values of wider fields."""
    where = parse(place)
    if where is None:
        return " ".join(attribute_names(value) if place == ATTRIBUTES else xfam_names(value))
    words = []
    for field in _fields(*where):
        part = (value & field.mask) >> field.low
        if part:
            words.append(label(field) if field.width == 1 else _assigned(field, part))
    return " ".join(words)


def difference(place: str, before: int, now: int) -> str:
    """What sets a register's value apart from another: bits that came and went, and the values of wider fields."""
    where = parse(place)
    if where is None:
        names = attribute_names if place == ATTRIBUTES else xfam_names
        return " ".join(
            [*(f"-{name}" for name in names(before & ~now)), *(f"+{name}" for name in names(now & ~before))]
        )
    words = []
    for field in _fields(*where):
        one, two = ((value & field.mask) >> field.low for value in (before, now))
        if one != two:
            words.append(_assigned(field, two) if field.width > 1 else f"{'+' if two else '-'}{label(field)}")
    return " ".join(words)


def label(field: Field) -> str:
    """A field's name for people; a bit without one is called by its number."""
    if not field.name:
        return f"bit{field.low}"
    return (field.qemu_name or field.name) if field.width == 1 else field.name


def _assigned(field: Field, value: int) -> str:
    return f"{label(field)}={say(field.name, field.width, value)}".replace("\\x00", "")


def _fields(leaf: Leaf, register: Register) -> list[Field]:
    return [field for field in fields_of(leaf) if field.register == register]


def _dynamic(leaf: Leaf, register: Register) -> int:
    mask = 0
    for field in named_fields_of(leaf):
        if field.dynamic and field.register == register:
            mask |= field.mask
    return mask
