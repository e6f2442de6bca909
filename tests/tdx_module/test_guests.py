"""Guests by name, and what holds for what any of them sees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.cpuid import ZERO, Leaf
from plugin.tdx_module import Controls, ModuleVersion, Platform, TdParams, init_td, load_module, module_names
from plugin.tdx_module.guest import settled
from plugin.tdx_module.guests import GUESTS, LINUX, VMM, ZEROS, UnknownGuest, find_guest
from plugin.tdx_module.names import FEATURE_PARAVIRT_CTRL
from tests.tdx_module.test_properties import setups

TD_CTLS = ("ENUM_TOPOLOGY", "VIRT_CPUID2", "REDUCE_VE")

controls = st.builds(
    Controls,
    st.frozensets(st.sampled_from(TD_CTLS)),
    st.frozensets(st.sampled_from(FEATURE_PARAVIRT_CTRL)),
    st.just(False),
    st.just(False),
)


class TestNames:
    def test_controls_by_name(self) -> None:
        found = find_guest("reduce-ve,enum-topology,paravirt=mtrr+mca")
        assert found.controls == Controls(frozenset({"REDUCE_VE", "ENUM_TOPOLOGY"}), frozenset({"mtrr", "mca"}))
        assert not found.asks_vmm
        assert find_guest("virt-cpuid2,ask-vmm").asks_vmm
        assert find_guest("supervisor-ve").controls.supervisor_ve

    @pytest.mark.parametrize("name", list(GUESTS))
    def test_a_name_is_itself(self, name: str) -> None:
        assert find_guest(name).name == name

    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("windows", "windows"),
            ("", ""),
            ("linux,reduce-ve", "linux"),
            ("reduce-ve,paravirt=mce", "mce"),
            ("paravirt=", ""),
            ("paravirt", "paravirt"),
            ("reduce-ve=1", "reduce-ve=1"),
        ],
    )
    def test_what_there_is_not(self, text: str, word: str) -> None:
        with pytest.raises(UnknownGuest, match="no guest and no control") as caught:
            find_guest(text)
        assert caught.value.word == word
        assert repr(word) in str(caught.value)

    @pytest.mark.parametrize("version", module_names())
    def test_every_gate_has_a_name(self, version: str) -> None:
        assert load_module(version).guest.gated.keys() in (set(), set(FEATURE_PARAVIRT_CTRL))


class TestWhoAnswers:
    def test_linux_answers_zeros_but_for_paravirtual_leaves(self) -> None:
        assert [LINUX.answers_ve(leaf) for leaf in (0x2, 0x16, 0x80000002)] == [ZEROS] * 3
        assert [LINUX.answers_ve(leaf) for leaf in (0x40000000, 0x4FFFFFFF)] == [VMM] * 2

    def test_tdvf_asks_the_vmm(self) -> None:
        assert find_guest("tdvf").answers_ve(0x2) == VMM


class TestSettled:
    """What a guest wants and what it gets, by module version."""

    @pytest.mark.parametrize(
        ("version", "td_ctls"),
        [
            ("1.0", set()),
            ("1.0.3", set()),
            ("1.5.01", set()),
            ("1.5.05", {"ENUM_TOPOLOGY"}),
            ("1.5.34", set(TD_CTLS)),
            ("2.0.18", set(TD_CTLS)),
        ],
    )
    def test_linux(self, version: str, td_ctls: set[str]) -> None:
        assert settled(load_module(version).guest, LINUX.controls).td_ctls == td_ctls

    @given(st.sampled_from(module_names()), controls)
    def test_settling_is_for_good(self, version: str, wanted: Controls) -> None:
        rules = load_module(version).guest
        once = settled(rules, wanted)
        assert settled(rules, once) == once
        assert not once.paravirt or "REDUCE_VE" in once.td_ctls


@given(setups())
def test_a_guest_without_controls_sees_what_the_td_holds_or_ve(
    setup: tuple[ModuleVersion, Platform, TdParams],
) -> None:
    """But for the four bits that read 1 until #VE is reduced, where a version has them."""
    module = setup[0]
    td = init_td(*setup)
    always = {bit.leaf: ZERO for bit in module.guest.on_before}
    for bit in module.guest.on_before:
        always[bit.leaf] |= ZERO.with_(bit.register, 1 << bit.position)
    for leaf, held in td.cpuid.items():
        seen = td.seen(leaf, Controls()).registers
        assert seen is None or seen == held | always.get(leaf, ZERO), leaf


@given(setups(), controls)
def test_every_difference_has_a_cause_and_no_other_bit_changes(
    setup: tuple[ModuleVersion, Platform, TdParams], wanted: Controls
) -> None:
    td = init_td(*setup)
    for leaf, held in td.cpuid.items():
        answer = td.seen(leaf, wanted)
        explained = ZERO
        for mask, _, cause in answer.causes:
            explained |= mask
            assert cause.kind in ("ve", "paravirt", "td-ctls")
            assert cause.detail
        if answer.registers is not None:
            assert (answer.registers ^ held).without(explained) == ZERO, leaf


@given(setups(), controls)
def test_no_leaf_raises_ve_where_it_has_been_reduced_but_for_features_that_the_guest_wants(
    setup: tuple[ModuleVersion, Platform, TdParams], wanted: Controls
) -> None:
    module = setup[0]
    td = init_td(*setup)
    got = settled(module.guest, wanted)
    raising = {leaf for leaf in range(0x30) if td.seen(Leaf(leaf, 0), wanted).registers is None}
    if "REDUCE_VE" in got.td_ctls:
        assert {module.guest.faulting[leaf] for leaf in raising} <= got.paravirt
    else:
        assert 0x16 in raising


def test_the_headline(platform: Platform) -> None:
    """1.5.05 to 1.5.34 under Linux: MCE, MCA, MTRR and the TSC deadline are gone, whatever is configured."""
    seen = {}
    for version in ("1.5.05", "1.5.34"):
        module = load_module(version)
        everything = {Leaf(1): module.configurable[Leaf(1)].with_("eax", 0)}
        td = init_td(module, platform, TdParams(0, 0x3, everything))
        registers = td.seen(Leaf(1), LINUX.controls).registers
        assert registers is not None
        places = [(registers.edx, 7), (registers.edx, 14), (registers.edx, 12), (registers.ecx, 24)]
        seen[version] = [register >> n & 1 for register, n in places]
    assert seen == {"1.5.05": [1, 1, 1, 1], "1.5.34": [0, 0, 0, 0]}
