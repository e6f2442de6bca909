"""Rules that came after 1.5.05, each by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from plugin.cpuid import ZERO, Bit, Leaf, Registers
from plugin.tdx_module import (
    ModuleVersion,
    Platform,
    SeamcallError,
    Td,
    TdParams,
    VcpuState,
    VirtualizationException,
    init_td,
    load_module,
    load_platform,
)

MALFORMED = 0xC000090400000000
PERFMON = 1 << 63
REDUCED = VcpuState(apic_id=0x42, td_ctls=frozenset({"REDUCE_VE"}))


@pytest.fixture(params=["1.5.34", "2.0.18"])
def newer(request: pytest.FixtureRequest) -> ModuleVersion:
    name: str = request.param
    return load_module(name)


def td(
    module: ModuleVersion, platform: Platform, config: Mapping[Leaf, Registers] | None = None, attributes: int = 0
) -> Td:
    return init_td(module, platform, TdParams(attributes, 0x3, config or {}))


def value(made: Td, leaf: Leaf) -> Registers:
    registers = made.read(leaf)
    assert registers is not None
    return registers


def topology(*levels: tuple[int, int, int]) -> dict[Leaf, Registers]:
    """Shift, count and level type, from 0x1f.0 on."""
    return {Leaf(0x1F, n): Registers(shift, count, n | kind << 8) for n, (shift, count, kind) in enumerate(levels)}


class TestTopologyLevels:
    def test_0xb_is_the_smt_level_and_the_highest_level(self, newer: ModuleVersion, platform: Platform) -> None:
        made = td(newer, platform, topology((1, 2, 1), (4, 16, 2), (6, 64, 5)))
        assert value(made, Leaf(0xB, 0)) == (1, 2, 0x100, 0)
        assert value(made, Leaf(0xB, 1)) == (6, 64, 0x201, 0)
        assert value(made, Leaf(0xB, 2)) == ZERO
        assert str(made.cause(Bit(Leaf(0xB, 1), "eax", 1))) == "module-rule: topology-levels"

    def test_without_an_smt_level_the_core_level_is_the_first(self, newer: ModuleVersion, platform: Platform) -> None:
        made = td(newer, platform, topology((4, 16, 2)))
        assert value(made, Leaf(0xB, 0)) == (4, 16, 0x200, 0)
        assert value(made, Leaf(0xB, 1)) == value(made, Leaf(0xB, 2)) == ZERO

    def test_all_zero_means_the_platforms(self, newer: ModuleVersion, platform: Platform) -> None:
        made = td(newer, platform)
        assert value(made, Leaf(0x1F, 0))[:3] == platform.native_leaf(Leaf(0x1F, 0))[:3]
        assert value(made, Leaf(0xB, 0))[:2] == platform.native_leaf(Leaf(0x1F, 0))[:2]

    @pytest.mark.parametrize(
        "levels",
        [
            {Leaf(0x1F, 1): Registers(1, 2, 0x101)},  # the first is zero, another is not
            {Leaf(0x1F, 0): Registers(1, 2, 0x000)},  # the first is invalid
            topology((1, 2, 1)),  # no core level before the end
            topology((1, 2, 2), (4, 16, 1)),  # falling
            topology((1, 2, 1), (4, 16, 6)),  # no such type
            {Leaf(0x1F, 0): Registers(1, 2, 0x101), Leaf(0x1F, 1): Registers(4, 16, 0x201)},  # level number 1 in 0
        ],
    )
    def test_malformed(self, newer: ModuleVersion, platform: Platform, levels: dict[Leaf, Registers]) -> None:
        with pytest.raises(SeamcallError, match="topology") as caught:
            td(newer, platform, levels)
        assert caught.value.status == MALFORMED

    def test_an_smt_level_after_the_end(self, newer: ModuleVersion, platform: Platform) -> None:
        levels = topology((4, 16, 2), (0, 0, 0), (1, 2, 1))
        with pytest.raises(SeamcallError, match=r"SMT level; that has to be 0x1f\.0"):
            td(newer, platform, levels)

    def test_1_5_05_takes_any_level_number(self, platform: Platform) -> None:
        levels = {Leaf(0x1F, 0): Registers(1, 2, 0x105), Leaf(0x1F, 1): Registers(4, 16, 0x207)}
        assert td(load_module("1.5.05"), platform, levels).read(Leaf(0x1F, 1)) == (4, 16, 0x207, 0)


def test_the_physical_width_is_the_platforms_whatever_is_chosen(newer: ModuleVersion, platform: Platform) -> None:
    native = platform.native_leaf(Leaf(0x80000008)).eax & 0xFF
    made = td(newer, platform, {Leaf(0x80000008): Registers(eax=39)})
    assert value(made, Leaf(0x80000008)).eax == native | 48 << 8
    with_width = {**platform.native, Leaf(0x80000008): platform.native_leaf(Leaf(0x80000008)).with_("eax", 0x303034)}
    made = td(newer, Platform("a host in a VM", "", with_width, tsx_ctrl=True), {Leaf(0x80000008): Registers(eax=39)})
    assert value(made, Leaf(0x80000008)).eax == 0x34 | 48 << 8
    assert str(made.cause(Bit(Leaf(0x80000008), "eax", 0))) == "module-rule: physical-width"


def test_sub_leaves_of_0x23_need_their_bit_in_the_first(newer: ModuleVersion) -> None:
    platform = load_platform("granite-rapids")
    assert platform.native_leaf(Leaf(0x23, 1)) != ZERO
    config = {Leaf(7, 1): Registers(eax=1 << 8), Leaf(0x23, 0): Registers(eax=0x3)}
    assert value(td(newer, platform, config, PERFMON), Leaf(0x23, 1)) != ZERO
    config[Leaf(0x23, 0)] = Registers(eax=0x1)
    made = td(newer, platform, config, PERFMON)
    assert value(made, Leaf(0x23, 1)) == ZERO
    assert "perfmon-subleaves" in {cause.detail for cause in made.causes(Leaf(0x23, 1), "eax")}


class TestVeReduction:
    @pytest.mark.parametrize("leaf", [0x6, 0x80000002])
    def test_a_leaf_with_a_value_waits_for_it(self, newer: ModuleVersion, platform: Platform, leaf: int) -> None:
        made = td(newer, platform)
        assert made.execute(leaf, 0, VcpuState()) == VirtualizationException(leaf, 0)
        assert made.execute(leaf, 0, REDUCED) == value(made, Leaf(leaf)) != ZERO

    def test_leaf_2_has_a_switch_of_its_own(self, newer: ModuleVersion, platform: Platform) -> None:
        made = td(newer, platform)
        assert made.execute(2, 0, REDUCED) == VirtualizationException(2, 0)
        assert made.execute(2, 0, VcpuState(td_ctls=frozenset({"VIRT_CPUID2"}))) == (0xFEFF01, 0, 0, 0)

    @pytest.mark.parametrize("leaf", [0x9, 0xC, 0xF, 0x10, 0x16, 0x17, 0x1B, 0x80000003, 0x80000005])
    def test_leaves_without_a_value_are_zero(self, newer: ModuleVersion, platform: Platform, leaf: int) -> None:
        made = td(newer, platform)
        assert made.execute(leaf, 0, VcpuState()) == VirtualizationException(leaf, 0)
        assert made.execute(leaf, 0, REDUCED) == ZERO

    def test_a_sub_leaf_above_the_topology(self, newer: ModuleVersion, platform: Platform) -> None:
        assert td(newer, platform).execute(0x1F, 9, REDUCED) == Registers(ecx=9, edx=0x42)

    @pytest.mark.parametrize(
        ("leaf", "config"),
        [(0x9, {Leaf(1): Registers(ecx=1 << 18)}), (0xF, {Leaf(7, 0): Registers(ebx=1 << 12)})],
    )
    def test_not_for_a_feature_the_td_has(
        self, newer: ModuleVersion, platform: Platform, leaf: int, config: dict[Leaf, Registers]
    ) -> None:
        assert td(newer, platform, config).execute(leaf, 0, REDUCED) == VirtualizationException(leaf, 0)

    def test_paravirtual_leaves_raise_ve_for_ever(self, newer: ModuleVersion, platform: Platform) -> None:
        assert td(newer, platform).execute(0x40000000, 0, REDUCED) == VirtualizationException(0x40000000, 0)

    def test_what_was_configured_shows_only_then(self, newer: ModuleVersion, platform: Platform) -> None:
        made = td(newer, platform)
        always = 1 << 7 | 1 << 12 | 1 << 14
        assert value(made, Leaf(1)).edx & always == 0
        before, after = made.execute(1, 0, VcpuState()), made.execute(1, 0, REDUCED)
        assert isinstance(before, Registers)
        assert isinstance(after, Registers)
        assert (before.edx & always, after.edx & always) == (always, 0)
        core = made.execute(7, 0, VcpuState())
        assert isinstance(core, Registers)
        assert core.edx >> 30 & 1
        assert made.execute(7, 0, REDUCED) == value(made, Leaf(7, 0))
        sub_leaf = made.execute(7, 2, VcpuState())
        assert isinstance(sub_leaf, Registers)
        assert sub_leaf.edx >> 30 & 1 == 0

    def test_an_older_module_has_no_such_thing(self, platform: Platform) -> None:
        made = td(load_module("1.5.05"), platform)
        assert made.execute(0x16, 0, REDUCED) == VirtualizationException(0x16, 0)
