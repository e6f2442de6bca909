"""KVM's own rules about a TD, apart from the module's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plugin.cpuid import ZERO, Leaf, Registers
from plugin.kvm.policy import (
    ADDED_CPUID,
    UNSUPPORTED_CPUID,
    WIDTH,
    WIDTH_LEAF,
    WIDTHS,
    for_module,
    guest_width,
    is_paravirtual,
    with_guest_width,
)

WORDS = st.integers(0, 0xFFFFFFFF)
VALUES = st.builds(Registers, WORDS, WORDS, WORDS, WORDS)


@given(value=VALUES, width=st.sampled_from(WIDTHS))
def test_a_width_that_is_put_in_is_read_again_and_nothing_else_changes(value: Registers, width: int) -> None:
    given = with_guest_width(value, width)
    assert guest_width(given) == width
    assert given.without(WIDTH) == value.without(WIDTH)


@given(value=VALUES, number=st.sampled_from([0x7, 0x80000007, 0x80000008]))
def test_only_the_width_is_kept_from_the_module(value: Registers, number: int) -> None:
    passed = for_module(Leaf(number), value)
    assert value ^ passed == (value & WIDTH if number == WIDTH_LEAF.number else ZERO)


def test_what_kvm_adds_and_what_it_hides_are_apart() -> None:
    assert not ADDED_CPUID.keys() & UNSUPPORTED_CPUID.keys()


def test_paravirtual_leaves_are_those_of_hypervisors() -> None:
    leaves = [0x0, 0x3FFFFFFF, 0x40000000, 0x4FFFFFFF, 0x50000000, 0x80000000, 0xC0000000]
    assert [leaf for leaf in leaves if is_paravirtual(Leaf(leaf))] == [0x40000000, 0x4FFFFFFF]
