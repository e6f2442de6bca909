"""What has changed since a baseline was saved: field by field, for which TDs, on which machine types. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from plugin.cpuid.fields import fields_of
from plugin.cpuid.values import say
from plugin.tdx_module import attribute_names, xfam_names
from qmp_client.baseline.guest import ATTRIBUTES, Guest, Seen, Td, label, order, parse
from qmp_client.baseline.machine_type import age, frozen
from qmp_client.baseline.text import Baseline


class Change(NamedTuple):
    """One field that is another one now."""

    where: str
    """As in ``0x7.0.ebx[5]``."""
    name: str
    before: str
    now: str


class Group(NamedTuple):
    """TDs with the same changes."""

    tds: list[Td]
    changes: list[Change]


class Machine(NamedTuple):
    """One machine type."""

    name: str
    frozen: bool
    """It must not change."""
    tds: int
    """How many TDs were compared."""
    groups: list[Group]
    """What changed; empty when nothing did."""

    @property
    def changed(self) -> int:
        """How many TDs are not what they were."""
        return sum(len(group.tds) for group in self.groups)


def compare(before: Baseline, now: Mapping[Td, Mapping[str, Guest]]) -> list[Machine]:
    """Compare what both have, machine type by machine type."""
    tds: dict[str, list[Td]] = {}
    for td in before.tds:
        for machine in before.tds[td]:
            if machine in now.get(td, {}):
                tds.setdefault(machine, []).append(td)
    return [_machine(name, before, now, tds[name]) for name in sorted(tds, key=age)]


def _machine(name: str, before: Baseline, now: Mapping[Td, Mapping[str, Guest]], tds: list[Td]) -> Machine:
    groups: dict[tuple[Change, ...], list[Td]] = {}
    for td in tds:
        found = tuple(changes(before.tds[td][name], now[td][name]))
        if found:
            groups.setdefault(found, []).append(td)
    return Machine(
        name, frozen(name, before.qemu_version), len(tds), [Group(who, list(what)) for what, who in groups.items()]
    )


def changes(before: Guest, now: Guest) -> Iterator[Change]:
    """The fields in which two guests differ, in the order of the leaves."""
    for place in sorted(before.keys() | now.keys(), key=order):
        old, new = before.get(place, Seen(0)), now.get(place, Seen(0))
        if old != new:
            yield from _changes(place, old, new)


def _changes(place: str, old: Seen, new: Seen) -> Iterator[Change]:
    where = parse(place)
    if where is None:
        names = attribute_names if place == ATTRIBUTES else xfam_names
        flipped = " ".join(names(old.value ^ new.value))
        yield Change(place, flipped, f"{old.value:#x}", f"{new.value:#x}")
        return
    leaf, register = where
    for field in fields_of(leaf):
        one, two = ((seen.value & field.mask) >> field.low for seen in (old, new))
        if field.register == register and one != two:
            bits = f"{field.low}" if field.width == 1 else f"{field.high}:{field.low}"
            said = (say(field.name, field.width, value) for value in (one, two))
            yield Change(f"{place}[{bits}]", label(field), *said)
    if old.value and new.value and old.by_hypercall != new.by_hypercall:
        ways = ("by hypercall" if seen.by_hypercall else "directly" for seen in (old, new))
        yield Change(place, "how the guest gets it", *ways)
