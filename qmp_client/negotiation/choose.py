"""Choosing: from what the ``-cpu`` model asks for and what may be configured, what KVM_TDX_INIT_VM is given.

Pure. The choice is exact: a configurable bit that is not in it goes to the TDX module as 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from plugin.cpuid import ZERO, Cpuid, Leaf, Registers, spelled_like
from plugin.cpuid.fields import fields_of
from plugin.kvm.policy import WIDTH, WIDTH_LEAF, WIDTHS, guest_width, with_guest_width


class Choice(NamedTuple):
    """What userspace chooses for a TD: 64-bit ATTRIBUTES and XFAM, and the configurable CPUID bits."""

    attributes: int
    xfam: int
    cpuid: dict[Leaf, Registers]


def by_model(requested: Cpuid, configurable: Cpuid) -> dict[Leaf, Registers]:
    """A configurable bit is set exactly when the ``-cpu`` model asks for it."""
    requested = spelled_like(requested, configurable)
    return {leaf: requested.get(leaf, ZERO) & mask for leaf, mask in configurable.items()}


def maximal(requested: Cpuid, configurable: Cpuid) -> dict[Leaf, Registers]:
    """Set every configurable feature bit; the module keeps those that the platform has.

    Fields wider than a bit (family and model, caches, topology) hold values, not features: those stay the model's.
    """
    model = by_model(requested, configurable)
    return {leaf: model[leaf] | (mask & _feature_bits(leaf)) for leaf, mask in configurable.items()}


def minimal(requested: Cpuid, configurable: Cpuid) -> dict[Leaf, Registers]:
    """Set no configurable bit, but for the guest address width, without which KVM refuses the TD."""
    chosen = dict.fromkeys(configurable, ZERO)
    if WIDTH_LEAF in chosen:
        chosen[WIDTH_LEAF] = requested.get(WIDTH_LEAF, ZERO) & configurable[WIDTH_LEAF] & WIDTH
    return chosen


POLICIES: dict[str, Callable[[Cpuid, Cpuid], dict[Leaf, Registers]]] = {
    "model": by_model,
    "maximal": maximal,
    "minimal": minimal,
}


SIGNATURE = (Leaf(1), Registers(eax=0x0FFF3FFF))
"""Leaf 1 EAX: family, model and stepping. 0 asks the module for the platform's own."""


def with_platform_signature(chosen: dict[Leaf, Registers]) -> dict[Leaf, Registers]:
    """Ask for the platform's own family, model and stepping instead of a named model's.

    The module gives a TD that cannot migrate no other, and refuses the whole TD when another is configured.
    """
    leaf, signature = SIGNATURE
    return chosen | {leaf: chosen[leaf].without(signature)} if leaf in chosen else chosen


def with_a_width_of_kvm(chosen: dict[Leaf, Registers], configurable: Cpuid) -> dict[Leaf, Registers]:
    """Replace a guest address width that KVM_TDX_INIT_VM does not take by the next one that it does."""
    if WIDTH_LEAF not in chosen or configurable[WIDTH_LEAF] & WIDTH == ZERO:
        return chosen
    asked = guest_width(chosen[WIDTH_LEAF])
    width = next((width for width in WIDTHS if asked <= width), max(WIDTHS))
    return chosen | {WIDTH_LEAF: with_guest_width(chosen[WIDTH_LEAF], width)}


def _feature_bits(leaf: Leaf) -> Registers:
    """The positions of a leaf that hold one feature each."""
    mask = ZERO
    for field in fields_of(leaf):
        if field.high == field.low:
            mask = mask.with_(field.register, mask.get(field.register) | 1 << field.low)
    return mask
