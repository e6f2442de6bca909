"""Rules that came after 1.5.05, each by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from plugin.cpuid import ALL, ZERO, Bit, Leaf, Registers
from plugin.tdx_module import (
    Controls,
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
GATED = [
    ("0x1 ecx 7", "est"),
    ("0x1 ecx 8", "tm2"),
    ("0x1 ecx 18", "dca"),
    ("0x1 ecx 24", "tsc-deadline"),
    ("0x1 edx 7", "mca"),
    ("0x1 edx 12", "mtrr"),
    ("0x1 edx 14", "mca"),
    ("0x1 edx 22", "acpi"),
    ("0x7.0 ebx 12", "rdt-m"),
    ("0x7.0 ebx 15", "rdt-a"),
    ("0x7.0 ecx 13", "tme"),
    ("0x7.0 edx 18", "pconfig"),
    ("0x7.0 edx 30", "core-capabilities"),
]
"""Bits that a guest with REDUCE_VE sees only where it wants the feature: CPUID's place, FEATURE_PARAVIRT_CTRL's bit."""
ALWAYS_ON = ("0x1 edx 7", "0x1 edx 12", "0x1 edx 14", "0x7.0 edx 30")
"""Those that read 1 for a guest without."""
REDUCED = VcpuState(apic_id=0x42, controls=Controls(frozenset({"REDUCE_VE"})))


def wanting(*features: str) -> VcpuState:
    """A guest that has reduced #VE and wants features back."""
    return VcpuState(controls=Controls(frozenset({"REDUCE_VE"}), frozenset(features)))


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
        assert value(made, Leaf(0xB, 2)) == (0, 0, 2, 0)
        assert str(made.cause(Bit(Leaf(0xB, 1), "eax", 1))) == "module-rule: topology-levels"

    def test_without_an_smt_level_the_core_level_is_the_first(self, newer: ModuleVersion, platform: Platform) -> None:
        made = td(newer, platform, topology((4, 16, 2)))
        assert value(made, Leaf(0xB, 0)) == (4, 16, 0x200, 0)
        assert value(made, Leaf(0xB, 1)) == (0, 0, 1, 0)
        assert value(made, Leaf(0xB, 2)) == (0, 0, 2, 0)

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

    @pytest.mark.parametrize("control", ["REDUCE_VE", "VIRT_CPUID2"])
    def test_leaf_2_has_a_switch_of_its_own(self, newer: ModuleVersion, platform: Platform, control: str) -> None:
        made = td(newer, platform)
        assert made.execute(2, 0, VcpuState()) == VirtualizationException(2, 0)
        assert made.execute(2, 0, VcpuState(controls=Controls(frozenset({control})))) == (0xFEFF01, 0, 0, 0)

    @pytest.mark.parametrize("control", ["REDUCE_VE", "ENUM_TOPOLOGY"])
    def test_so_has_the_topology(self, newer: ModuleVersion, platform: Platform, control: str) -> None:
        made = td(newer, platform, topology((1, 2, 1), (4, 16, 2)))
        vcpu = VcpuState(apic_id=0x42, vcpu_index=7, controls=Controls(frozenset({control})))
        assert made.execute(0xB, 0, VcpuState()) == VirtualizationException(0xB, 0)
        assert made.execute(0xB, 1, vcpu) == (4, 16, 0x201, 0x42)
        assert made.execute(0xB, 2, vcpu) == (0, 0, 2, 0x42)
        third = made.execute(0xB, 3, vcpu)
        assert third == (Registers(ecx=3, edx=0x42) if control == "REDUCE_VE" else VirtualizationException(0xB, 3))
        leaf_1 = made.execute(1, 0, vcpu)
        assert isinstance(leaf_1, Registers)
        assert leaf_1.ebx >> 24 == 0x42

    @pytest.mark.parametrize("leaf", [0x9, 0xC, 0xF, 0x10, 0x16, 0x17, 0x1B, 0x80000003, 0x80000005])
    def test_leaves_without_a_value_are_zero(self, newer: ModuleVersion, platform: Platform, leaf: int) -> None:
        made = td(newer, platform)
        assert made.execute(leaf, 0, VcpuState()) == VirtualizationException(leaf, 0)
        assert made.execute(leaf, 0, REDUCED) == ZERO

    def test_a_sub_leaf_above_the_topology(self, newer: ModuleVersion, platform: Platform) -> None:
        assert td(newer, platform).execute(0x1F, 9, REDUCED) == Registers(ecx=9, edx=0x42)

    @pytest.mark.parametrize(
        ("leaf", "config", "feature"),
        [
            (0x9, {Leaf(1): Registers(ecx=1 << 18)}, "dca"),
            (0xF, {Leaf(7, 0): Registers(ebx=1 << 12)}, "rdt-m"),
            (0x10, {Leaf(7, 0): Registers(ebx=1 << 15)}, "rdt-a"),
            (0x1B, {Leaf(7, 0): Registers(edx=1 << 18)}, "pconfig"),
        ],
    )
    def test_a_leaf_of_a_feature_that_the_guest_wants_goes_on_raising_ve(
        self, newer: ModuleVersion, platform: Platform, leaf: int, config: dict[Leaf, Registers], feature: str
    ) -> None:
        there = platform.native_leaf(next(iter(config))) & next(iter(config.values())) != ZERO
        made = td(newer, platform, config)
        assert made.execute(leaf, 0, REDUCED) == ZERO
        wanted = made.execute(leaf, 0, wanting(feature))
        assert wanted == (VirtualizationException(leaf, 0) if there else ZERO)
        assert td(newer, platform).execute(leaf, 0, wanting(feature)) == ZERO

    def test_paravirtual_leaves_raise_ve_for_ever(self, newer: ModuleVersion, platform: Platform) -> None:
        assert td(newer, platform).execute(0x40000000, 0, REDUCED) == VirtualizationException(0x40000000, 0)

    @pytest.mark.parametrize(("place", "feature"), GATED)
    def test_a_gated_bit(self, newer: ModuleVersion, platform: Platform, place: str, feature: str) -> None:
        """Off: 0 whatever is configured. On: what is configured. Without REDUCE_VE: that, or 1 for four of them."""
        name, register, position = place.split()
        bit = Bit(Leaf.parse(name), register, int(position))  # type: ignore[arg-type]
        everything = Platform("all bits", "", {**platform.native, bit.leaf: ALL}, tsx_ctrl=True)
        mask = ZERO.with_(bit.register, 1 << bit.position)
        configurable = newer.configurable[bit.leaf] & mask != ZERO
        always = place in ALWAYS_ON
        for configured in (True, False) if configurable else (False,):
            made = td(newer, everything, {bit.leaf: mask} if configured else {})
            held = bit.of(made.cpuid)

            def seen(vcpu: VcpuState, made: Td = made) -> int | None:
                answer = made.execute(bit.leaf.number, bit.leaf.subleaf or 0, vcpu)
                assert isinstance(answer, Registers)
                return bit.of({bit.leaf: answer})

            assert seen(REDUCED) == 0
            assert seen(wanting(feature)) == held
            others = sorted(newer.guest.gated.keys() - {feature})
            assert seen(wanting(*others)) == 0
            assert seen(VcpuState()) == (1 if always else held)
            without_reduction = VcpuState(controls=Controls(frozenset({"ENUM_TOPOLOGY"}), frozenset({feature})))
            assert seen(without_reduction) == (1 if always else held)
        assert place in {f"{one.leaf} {one.register} {one.position}" for one in newer.guest.gated[feature]}

    def test_no_more_bits_are_gated(self, newer: ModuleVersion) -> None:
        assert sum(map(len, newer.guest.gated.values())) == len(GATED)

    def test_a_sub_leaf_has_bits_of_its_own(self, newer: ModuleVersion, platform: Platform) -> None:
        sub_leaf = td(newer, platform).execute(7, 2, VcpuState())
        assert isinstance(sub_leaf, Registers)
        assert sub_leaf.edx >> 30 & 1 == 0

    def test_caches_are_the_processors_but_for_two_fields(self, newer: ModuleVersion, platform: Platform) -> None:
        """EAX[25:14] and EAX[31:26] are as they were configured; sub-leaf 4 and the next are zero."""
        configured = Registers(0xFD0FC1E1, 0x01C0003F | 0xFFFFF000, 0x1234, 0x5)
        made = td(newer, platform, {Leaf(4, 0): configured & newer.configurable[Leaf(4, 0)]})
        held = value(made, Leaf(4, 0))
        native = platform.native_leaf(Leaf(4, 0))
        assert made.execute(4, 0, VcpuState()) == held
        assert made.execute(4, 0, REDUCED) == (
            native.eax & 0x00003FFF | held.eax & 0xFFFFC000,
            native.ebx,
            native.ecx,
            native.edx & 0x7,
        )
        assert held.eax & 0xFFFFC000 == configured.eax & 0xFFFFC000
        assert made.execute(4, 4, REDUCED) == made.execute(4, 5, REDUCED) == ZERO

    def test_the_brand_string(self, newer: ModuleVersion, platform: Platform) -> None:
        made = td(newer, platform)
        text = b""
        for leaf in (0x80000002, 0x80000003, 0x80000004):
            answer = made.execute(leaf, 0, REDUCED)
            assert isinstance(answer, Registers)
            text += b"".join(word.to_bytes(4, "little") for word in answer)
        assert text.rstrip(b"\0") == b"Intel TDX   "

    def test_an_older_module_has_no_such_thing(self, platform: Platform) -> None:
        made = td(load_module("1.5.05"), platform)
        assert made.execute(0x16, 0, REDUCED) == VirtualizationException(0x16, 0)
