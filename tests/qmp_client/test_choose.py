"""Choosing: what each policy gives KVM_TDX_INIT_VM, and which choices contradict themselves."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.cpuid import ZERO, Leaf, Registers
from plugin.tdx_module import load_module
from qmp_client.errors import UsageError
from qmp_client.negotiation.choose import POLICIES, with_a_width_of_kvm, with_platform_signature
from qmp_client.negotiation.contradictions import emptied, refused
from qmp_client.negotiation.understand import understand

MODULE = load_module("1.5.05")
CONFIGURABLE = dict(MODULE.configurable)
WIDTH = Leaf(0x80000008)
words = st.integers(0, 0xFFFFFFFF)
registers = st.builds(Registers, words, words, words, words)
requests = st.dictionaries(st.sampled_from([*CONFIGURABLE, Leaf(2), Leaf(0x40000001)]), registers)


@given(requests, st.sampled_from(sorted(POLICIES)))
def test_no_policy_leaves_the_configurable_bits(requested: dict[Leaf, Registers], policy: str) -> None:
    chosen = POLICIES[policy](requested, CONFIGURABLE)
    assert chosen.keys() == CONFIGURABLE.keys(), "a leaf that is left out would not be an exact choice"
    for leaf, value in chosen.items():
        assert value.without(CONFIGURABLE[leaf]) == ZERO


@given(requests)
def test_the_model_decides_exactly_the_configurable_bits(requested: dict[Leaf, Registers]) -> None:
    for leaf, value in POLICIES["model"](requested, CONFIGURABLE).items():
        assert value == requested.get(leaf, ZERO) & CONFIGURABLE[leaf]


@given(requests)
def test_minimal_keeps_nothing_but_the_guest_address_width(requested: dict[Leaf, Registers]) -> None:
    offered = CONFIGURABLE | {WIDTH: CONFIGURABLE[WIDTH] | Registers(eax=0xFF0000)}
    chosen = POLICIES["minimal"](requested, offered)
    assert {leaf for leaf, value in chosen.items() if value != ZERO} <= {WIDTH}
    assert chosen[WIDTH] == requested.get(WIDTH, ZERO) & Registers(eax=0xFF0000)


def test_maximal_sets_features_but_keeps_the_model_s_values() -> None:
    requested = {Leaf(1): Registers(eax=0xC06F2, ebx=0x20000), Leaf(7, 0): ZERO}
    chosen = POLICIES["maximal"](requested, CONFIGURABLE)
    assert chosen[Leaf(7, 0)] == CONFIGURABLE[Leaf(7, 0)]
    assert chosen[Leaf(1)].eax == 0xC06F2 & CONFIGURABLE[Leaf(1)].eax, "family and model are a value, not features"
    assert chosen[Leaf(1)].ebx == 0x20000, "so is the number of logical processors"


def test_a_leaf_matches_however_its_sub_leaf_is_spelled() -> None:
    chosen = POLICIES["model"]({Leaf(0x1C, 0): Registers(eax=0xFF)}, {Leaf(0x1C): Registers(eax=0x0F)})
    assert chosen == {Leaf(0x1C): Registers(eax=0x0F)}


HLE, RTM = 1 << 4, 1 << 11


@pytest.mark.parametrize(
    ("cpuid", "attributes", "xfam", "said"),
    [
        ({}, None, 0x67, r"XFAM\[7:5\]"),
        ({}, None, 0x807, "CET"),
        ({}, None, 0x20007, "AMX"),
        ({Leaf(7, 0): Registers(ebx=HLE)}, None, None, "HLE .* and RTM"),
        ({}, 1 << 29 | 1, None, "migratable"),
    ],
)
def test_what_no_td_can_be_is_said(
    cpuid: dict[Leaf, Registers], attributes: int | None, xfam: int | None, said: str
) -> None:
    reasons = refused(cpuid, attributes, xfam)
    assert len(reasons) == 1
    assert re.search(said, reasons[0]), reasons


def test_what_agrees_is_left_alone() -> None:
    assert refused({Leaf(7, 0): Registers(ebx=HLE | RTM)}, 1 << 28, 0x602E7) == []


def test_features_without_their_state_are_named_once_together() -> None:
    avx512 = {Leaf(7, 0): Registers(ebx=1 << 16 | 1 << 17)}
    assert emptied(avx512, 0xE7, MODULE) == []
    (sentence,) = emptied(avx512, 0x7, MODULE)
    assert sentence.startswith("avx512f, avx512dq will be cleared: XFAM 0x7 leaves out XFAM[5]")


@pytest.mark.parametrize(
    ("choose", "attributes", "xfam", "said"),
    [
        ("modle", None, None, "neither a policy nor a file"),
        ("model", None, "0x20007", "no TD can be like that"),
        ("model", None, "AVX", "--xfam: 'AVX' is no number"),
        ("model", "0x1ffffffffffffffff", None, "64 bits"),
    ],
)
def test_words_of_the_command_line(choose: str, attributes: str | None, xfam: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        understand(choose, attributes, xfam)


@pytest.mark.parametrize(("asked", "chosen"), [(0, 48), (46, 48), (48, 48), (49, 52), (52, 52)])
def test_kvm_takes_two_guest_address_widths(asked: int, chosen: int) -> None:
    offered = {WIDTH: Registers(eax=0xFF0000, ebx=0x200)}
    given = {WIDTH: Registers(eax=asked << 16, ebx=0x200)}
    assert with_a_width_of_kvm(given, offered) == {WIDTH: Registers(eax=chosen << 16, ebx=0x200)}


def test_a_width_that_is_not_offered_is_left_alone() -> None:
    given = {WIDTH: Registers(ebx=0x200)}
    assert with_a_width_of_kvm(given, {WIDTH: Registers(ebx=0x200)}) == given


def test_the_platform_s_own_signature_is_zero() -> None:
    chosen = {Leaf(1): Registers(eax=0x806F4, ebx=0x20000), Leaf(7, 0): Registers(ebx=1)}
    assert with_platform_signature(chosen) == {Leaf(1): Registers(ebx=0x20000), Leaf(7, 0): Registers(ebx=1)}
