"""What no known module does is found without being told where to look."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.cpuid import ZERO, Cpuid, Leaf, Registers
from plugin.kvm.policy import UNSUPPORTED_CPUID
from plugin.tdx_module import TdParams, init_td, load_module, load_platform, platform_names, published_names
from qmp_client.reconcile.cause import Evidence
from qmp_client.reconcile.news import news

KNOWN = [load_module(name) for name in published_names()]


def shown(masks: Cpuid) -> dict[Leaf, Registers]:
    """As KVM offers it: without what it hides, with the address width, and with sub-leaf 0 where there is none."""
    offer = {leaf: mask.without(UNSUPPORTED_CPUID.get(leaf, ZERO)) for leaf, mask in masks.items()}
    offer = {Leaf(leaf.number, leaf.subleaf or 0): mask for leaf, mask in offer.items()}
    width = offer.get(Leaf(0x80000008, 0), ZERO)
    return {**offer, Leaf(0x80000008, 0): width.with_("eax", width.eax | 0xFF0000)}


def evidence(version: str, platform: str, *, everything: bool = False) -> Evidence:
    module = load_module(version)
    config = {leaf: mask for leaf, mask in module.configurable.items() if leaf.number not in (1, 0x1F)}
    td = init_td(module, load_platform(platform), TdParams(0, 3, config if everything else {}))
    actual = dict(td.cpuid)
    wide = actual.get(Leaf(0x80000008), ZERO)
    actual[Leaf(0x80000008)] = wide.with_("eax", wide.eax | 48 << 16)
    return Evidence({}, {}, shown(module.configurable), {}, actual)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("platform", platform_names())
@pytest.mark.parametrize("version", published_names())
def test_a_known_module_is_no_news(version: str, platform: str, everything: bool) -> None:
    assert news(evidence(version, platform, everything=everything), KNOWN, UNSUPPORTED_CPUID) == []


def test_the_made_up_module_is_found_in_all_four_places() -> None:
    assert news(evidence("future", "emerald-rapids"), KNOWN, UNSUPPORTED_CPUID) == [
        "can be configured, which no known TDX module allows: hypervisor (0x1.ecx[31])",
        "cannot be configured any more, unlike in TDX module 2.0.18: cldemote (0x7.0.ecx[25])",
        "in no known TDX module, nobody asked for it: leaf 0x26",
        "set, though every known TDX module clears it: cet_sss (0x7.1.edx[18])",
        "clear, though every known TDX module sets it: hypervisor (0x1.ecx[31])",
    ]


def test_a_part_of_an_offer_says_nothing_about_the_rest() -> None:
    said = news(evidence("future", "emerald-rapids"), KNOWN, UNSUPPORTED_CPUID, whole_offer=False)
    assert not any("any more" in sentence for sentence in said)
    assert any("hypervisor" in sentence for sentence in said)


def test_an_older_module_than_the_newest_is_compared_with_itself() -> None:
    older = evidence("1.5.05", "emerald-rapids")
    offer = dict(older.configurable)
    offer[Leaf(7, 0)] = offer[Leaf(7, 0)].with_("ecx", offer[Leaf(7, 0)].ecx & ~(1 << 22))
    said = news(older._replace(configurable=offer), KNOWN, UNSUPPORTED_CPUID)
    assert said == ["cannot be configured any more, unlike in TDX module 1.5.05: rdpid (0x7.0.ecx[22])"]


@given(st.integers(0x27, 0x3F), st.integers(1, 0xFFFFFFFF))
def test_any_new_leaf_is_found(number: int, value: int) -> None:
    usual = evidence("1.5.34", "granite-rapids")
    more = usual._replace(actual={**usual.actual, Leaf(number): Registers(ebx=value)})
    assert news(more, KNOWN, UNSUPPORTED_CPUID) == [f"in no known TDX module, nobody asked for it: leaf {number:#x}"]


def test_a_set_bit_without_a_name_is_found() -> None:
    usual = evidence("1.5.34", "granite-rapids")
    leaf = Leaf(0x1D, 0)
    value = usual.actual[leaf]
    more = usual._replace(actual={**usual.actual, leaf: value.with_("ebx", value.ebx | 1 << 9)})
    assert news(more, KNOWN, UNSUPPORTED_CPUID) == ["set without having a name: 0x1d.0.ebx[9]"]
