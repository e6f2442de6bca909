"""What a user gains or loses when KVM is asked for a TD's CPUID in another way. Pure.

The same `-cpu` on the same module and processor, once through upstream KVM and once through the 2024 proposal's calls
(docs/kvm-proposal-abi.md): what could be chosen, what the TD got, and what the guest gets by hypercall.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

import msgspec

from plugin.cpuid import ZERO, Cpuid, Leaf, Register, spelled_like
from plugin.cpuid.fields import Field, fields_of
from plugin.cpuid.values import bits
from qmp_client.reconcile.reconcile import title


class Effect(StrEnum):
    """What the proposal changes for one field."""

    HIDDEN = "kvm-unknown"
    """Loss: the module can configure it, but KVM does not know it, so nobody can choose, and KVM sets it to 1."""
    OFFERED = "offered"
    """Gain: only the proposal's KVM lets it be chosen."""
    BY_HYPERCALL = "by-hypercall"
    """Loss: the guest got it by hypercall, from what the VMM had given KVM (paravirtual leaves, too); it gets 0 now."""
    UNREADABLE = "unreadable"
    """Loss: upstream KVM reads the leaf back, the proposal's does not."""
    READABLE = "readable"
    """Gain: only the proposal's KVM reads the leaf back."""
    ALTERED = "altered"
    """The TD is different, for none of the reasons above."""
    AGREED = "agreed"
    """Gain: KVM's copy of the vCPU's CPUID was not what the TD has; with the proposal it is."""


LOSSES = (Effect.HIDDEN, Effect.BY_HYPERCALL, Effect.UNREADABLE)
GAINS = (Effect.OFFERED, Effect.READABLE, Effect.AGREED)


class Side(NamedTuple):
    """What one negotiation showed."""

    configurable: Cpuid
    chosen: Cpuid
    actual: Cpuid
    kvm_copy: Cpuid
    """What KVM took the vCPU's CPUID to be."""


class View(msgspec.Struct, frozen=True):
    """One field under one interface; values are shifted down to bit 0."""

    chosen: int | None
    """None: it could not be chosen."""
    got: int | None
    """None: it was not read back."""
    kvm: int | None
    """What KVM believed; None: it had no such leaf."""


class Change(msgspec.Struct, frozen=True):
    """One field that the interface makes a difference to."""

    leaf: int
    subleaf: int | None
    register: Register
    low: int
    high: int
    name: str
    effect: Effect
    critical: bool
    """KVM's own emulation relies on it."""
    upstream: View
    proposal: View

    @property
    def where(self) -> str:
        """Where the field lives, as in ``0x7.0.ebx[5]``."""
        return f"{Leaf(self.leaf, self.subleaf)}.{self.register}[{bits(self.low, self.high)}]"

    @property
    def sentence(self) -> str:
        """What it means, for people."""
        if self.effect is Effect.HIDDEN:
            same = self.proposal.got == self.upstream.got
            return "KVM sets it to 1; the TD is the same here" if same else "KVM sets it to 1"
        if self.effect is Effect.AGREED:
            return f"upstream, KVM took it to be {self.upstream.kvm:#x}"
        return {
            Effect.OFFERED: "can be chosen only with the proposal",
            Effect.BY_HYPERCALL: "cannot be set, the guest gets 0",
            Effect.UNREADABLE: "is not read back any more",
            Effect.READABLE: "is read back only with the proposal",
            Effect.ALTERED: "is another value",
        }[self.effect]


def differences(upstream: Side, proposal: Side) -> list[Change]:
    """Compare field by field, in the order of the leaves."""
    model = {**upstream.actual, **proposal.actual}
    one, two = (_aligned(side, model) for side in (upstream, proposal))
    leaves = {leaf for side in (one, two) for table in side for leaf in table}
    return [
        change
        for leaf in sorted(leaves, key=lambda leaf: leaf.order)
        for field in fields_of(leaf)
        for change in _changes(leaf, field, one, two)
    ]


def count(changes: Iterable[Change]) -> dict[str, int]:
    """How many fields there are for each effect."""
    counts = dict.fromkeys((effect.value for effect in Effect), 0)
    for change in changes:
        counts[change.effect] += 1
    return counts


def _aligned(side: Side, model: Cpuid) -> Side:
    return Side(*(spelled_like(table, model) for table in side))


def _changes(leaf: Leaf, field: Field, one: Side, two: Side) -> Iterator[Change]:
    effect = _effect(leaf, field, one, two)
    if effect is None:
        return
    yield Change(
        leaf=leaf.number,
        subleaf=leaf.subleaf,
        register=field.register,
        low=field.low,
        high=field.high,
        name=title(field),
        effect=effect,
        critical=field.kvm_critical,
        upstream=_view(leaf, field, one),
        proposal=_view(leaf, field, two),
    )


def _effect(leaf: Leaf, field: Field, one: Side, two: Side) -> Effect | None:
    """The one effect that says most about a field, None where there is none."""
    could, can = (field.extract(side.configurable.get(leaf, ZERO)) for side in (one, two))
    if could & ~can:
        return Effect.HIDDEN
    if can & ~could:
        return Effect.OFFERED
    before, after = _value(one.actual, leaf, field), _value(two.actual, leaf, field)
    believed, believes = _value(one.kvm_copy, leaf, field), _value(two.kvm_copy, leaf, field)
    if before is None and after is None:
        return Effect.BY_HYPERCALL if believed and not believes else None
    if after is None:
        return Effect.UNREADABLE if before else None
    if before is None:
        return Effect.READABLE if after else None
    if field.dynamic:
        return None
    if before != after:
        return Effect.ALTERED
    return Effect.AGREED if believed not in (None, before) and believes == after else None


def _view(leaf: Leaf, field: Field, side: Side) -> View:
    could = field.extract(side.configurable.get(leaf, ZERO))
    return View(
        chosen=_value(side.chosen, leaf, field) if could else None,
        got=_value(side.actual, leaf, field),
        kvm=_value(side.kvm_copy, leaf, field),
    )


def _value(cpuid: Cpuid, leaf: Leaf, field: Field) -> int | None:
    registers = cpuid.get(leaf)
    return None if registers is None else field.extract(registers)
