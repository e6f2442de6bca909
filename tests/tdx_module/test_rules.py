"""Each special rule, on examples worked out by hand from the published description."""

from __future__ import annotations

import pytest

from plugin.cpuid import REGISTERS, ZERO, Bit, Leaf, Register, Registers
from plugin.tdx_module import (
    ModuleVersion,
    Platform,
    SeamcallError,
    Td,
    TdParams,
    init_td,
    load_module,
    load_platform,
)

OPERAND_INVALID = 0xC000_0100_0000_0000
CPUID_CONFIG_REFUSED = OPERAND_INVALID | 69
MIGRATABLE, PKS, PERFMON, LASS, DEBUG = 1 << 29, 1 << 30, 1 << 63, 1 << 27, 1

X87_SSE, AVX, AVX512, PT, PKRU, CET, ULI, LBR, AMX = 0x3, 0x4, 0xE0, 0x100, 0x200, 0x1800, 0x4000, 0x8000, 0x60000
EVERYTHING = X87_SSE | AVX | AVX512 | PT | PKRU | CET | ULI | LBR | AMX

LEAF1, LEAF7, LEAF71, LEAFD0, LEAFD1 = Leaf(1), Leaf(7, 0), Leaf(7, 1), Leaf(0xD, 0), Leaf(0xD, 1)


def td(
    module: ModuleVersion,
    platform: Platform,
    config: dict[Leaf, Registers] | None = None,
    *,
    attributes: int = 0,
    xfam: int = EVERYTHING,
    tsc_khz: int = 0,
) -> Td:
    return init_td(module, platform, TdParams(attributes, xfam, config or {}, tsc_khz))


def value(made: Td, leaf: Leaf) -> Registers:
    registers = made.read(leaf)
    assert registers is not None
    return registers


def cause(made: Td, leaf: Leaf, register: Register, position: int) -> str:
    return str(made.cause(Bit(leaf, register, position)))


@pytest.mark.parametrize("register", REGISTERS)
def test_every_bit_the_vmm_may_not_set_is_refused(
    module: ModuleVersion, platform: Platform, register: Register
) -> None:
    for leaf in module.rows:
        legal = module.configurable.get(leaf, ZERO).get(register)
        for bit in (1 << n for n in range(32) if not legal >> n & 1):
            with pytest.raises(SeamcallError, match=f"{leaf}") as caught:
                td(module, platform, {leaf: ZERO.with_(register, bit)})
            assert (caught.value.status, caught.value.leaf) == (CPUID_CONFIG_REFUSED, leaf)


class TestFamilyModel:
    def test_zero_means_the_platform(self, module: ModuleVersion, platform: Platform) -> None:
        made = td(module, platform)
        assert value(made, LEAF1).eax == 0xC06F2
        assert cause(made, LEAF1, "eax", 4) == "module-rule: family/model"

    def test_the_platforms_own_value_may_be_configured(self, module: ModuleVersion, platform: Platform) -> None:
        made = td(module, platform, {LEAF1: Registers(eax=0xC06F2)})
        assert value(made, LEAF1).eax == 0xC06F2
        assert cause(made, LEAF1, "eax", 4) == "configured"

    def test_another_value_is_refused(self, module: ModuleVersion, platform: Platform) -> None:
        with pytest.raises(SeamcallError, match="not migratable") as caught:
            td(module, platform, {LEAF1: Registers(eax=0x806F8)})
        assert caught.value.status == CPUID_CONFIG_REFUSED == 0xC000010000000045
        assert caught.value.rcx == 0xFFFFFFFF_00000001

    def test_a_migratable_td_may_be_an_older_processor(self, module: ModuleVersion, platform: Platform) -> None:
        made = td(module, platform, {LEAF1: Registers(eax=0x806F8)}, attributes=MIGRATABLE)
        assert value(made, LEAF1).eax == 0x806F8

    @pytest.mark.parametrize("fms", [0xA06D0, 0xC06F3, 0x806F9, 0x50657])
    def test_not_a_newer_one_a_later_stepping_or_an_unlisted_one(
        self, module: ModuleVersion, platform: Platform, fms: int
    ) -> None:
        with pytest.raises(SeamcallError, match="migratable TD may have") as caught:
            td(module, platform, {LEAF1: Registers(eax=fms)}, attributes=MIGRATABLE)
        assert caught.value.leaf == LEAF1

    def test_1_0_has_no_choice(self, platform: Platform) -> None:
        made = td(load_module("1.0"), platform)
        assert value(made, LEAF1).eax == 0xC06F2
        assert cause(made, LEAF1, "eax", 4) == "native"


class TestTsx:
    @pytest.mark.parametrize(("ebx", "bits"), [(1 << 4, "be 1 and .* 0;"), (1 << 11, "be 0 and .* 1;")])
    def test_half_of_it_is_refused(self, module: ModuleVersion, platform: Platform, ebx: int, bits: str) -> None:
        with pytest.raises(SeamcallError, match=bits) as caught:
            td(module, platform, {LEAF7: Registers(ebx=ebx)})
        assert caught.value.status == CPUID_CONFIG_REFUSED
        assert caught.value.leaf == LEAF7

    def test_both_or_neither(self, module: ModuleVersion, platform: Platform) -> None:
        both = 1 << 4 | 1 << 11
        assert value(td(module, platform, {LEAF7: Registers(ebx=both)}), LEAF7).ebx & both == both
        assert value(td(module, platform), LEAF7).ebx & both == 0

    def test_it_needs_the_msr(self, module: ModuleVersion, platform: Platform) -> None:
        without = Platform("no-tsx-ctrl", "", platform.native, tsx_ctrl=False)
        with pytest.raises(SeamcallError, match="IA32_TSX_CTRL") as caught:
            td(module, without, {LEAF7: Registers(ebx=1 << 4 | 1 << 11)})
        assert caught.value.status == 0xC00009210000010A
        assert value(td(module, without), LEAF7).ebx & 1 << 4 == 0


class TestTsc:
    def test_the_platforms_frequency(self, module: ModuleVersion, platform: Platform) -> None:
        made = td(module, platform)
        assert value(made, Leaf(0x15)) == (1, 84, 25_000_000, 0)  # 84 * 25 MHz = 2.1 GHz
        assert cause(made, Leaf(0x15), "ebx", 0) == "module-rule: tsc"
        assert cause(made, Leaf(0x15), "eax", 0) == "fixed-1"
        assert cause(made, Leaf(0x15), "eax", 1) == "fixed-0"

    @pytest.mark.parametrize(("khz", "units"), [(100_000, 4), (124_999, 4), (1_000_000, 40), (10_000_000, 400)])
    def test_in_units_of_25_mhz(self, module: ModuleVersion, platform: Platform, khz: int, units: int) -> None:
        assert value(td(module, platform, tsc_khz=khz), Leaf(0x15)).ebx == units

    @pytest.mark.parametrize("khz", [99_999, 10_025_000])
    def test_out_of_range(self, module: ModuleVersion, platform: Platform, khz: int) -> None:
        with pytest.raises(SeamcallError, match="100 MHz to 10 GHz") as caught:
            td(module, platform, tsc_khz=khz)
        assert caught.value.status == OPERAND_INVALID | 70


class TestXfam:
    def test_avx_gates_leaf_1(self, module: ModuleVersion, platform: Platform) -> None:
        asked = {LEAF1: Registers(ecx=1 << 28)}
        with_avx = td(module, platform, asked, xfam=X87_SSE | AVX)
        without = td(module, platform, asked, xfam=X87_SSE)
        assert value(with_avx, LEAF1).ecx >> 28 & 1 == 1
        assert value(with_avx, LEAF1).ecx >> 12 & 1 == 1  # FMA is native, and AVX's
        assert value(without, LEAF1).ecx & 0x30001000 == 0
        assert cause(without, LEAF1, "ecx", 28) == "xfam[2]"

    def test_a_native_bit_that_xfam_allows_is_xfams_doing(self, module: ModuleVersion, platform: Platform) -> None:
        assert cause(td(module, platform), LEAF7, "ecx", 3) == "xfam[9]"
        without = td(module, platform, xfam=EVERYTHING & ~PKRU)
        assert value(without, LEAF7).ecx >> 3 & 1 == 0
        assert cause(without, LEAF7, "ecx", 3) == "xfam[9]"

    def test_an_allowed_bit_that_the_vmm_cleared_is_not(self, module: ModuleVersion, platform: Platform) -> None:
        made = td(module, platform, xfam=X87_SSE | AVX)
        assert cause(made, LEAF7, "ebx", 16) == "configured"  # avx512f: cleared before XFAM is asked
        asked = td(module, platform, {LEAF7: Registers(ebx=1 << 16)}, xfam=X87_SSE | AVX)
        assert cause(asked, LEAF7, "ebx", 16) == "xfam[5]"

    def test_state_components_follow(self, module: ModuleVersion, platform: Platform) -> None:
        made = td(module, platform, xfam=X87_SSE | AVX)
        assert value(made, LEAFD0).eax == 0x7
        assert value(made, Leaf(0xD, 2)) == (0x100, 0x240, 0, 0)
        assert value(made, Leaf(0xD, 5)) == ZERO
        assert cause(made, Leaf(0xD, 5), "eax", 6) == "xfam[5]"

    @pytest.mark.parametrize(("leaf", "bit"), [(Leaf(0x14, 0), PT), (Leaf(0x1C), LBR), (Leaf(0x1D, 1), AMX)])
    def test_whole_leaves(self, module: ModuleVersion, platform: Platform, leaf: Leaf, bit: int) -> None:
        assert value(td(module, platform), leaf) != ZERO
        assert value(td(module, platform, xfam=EVERYTHING & ~bit), leaf) == ZERO

    @pytest.mark.parametrize("xfam", [0x1, 0x3 | 0x20, 0x3 | 0x80 | AVX, X87_SSE | AVX512, 0x3 | 0x800, 0x3 | 0x20000])
    def test_contradictions_are_refused(self, module: ModuleVersion, platform: Platform, xfam: int) -> None:
        with pytest.raises(SeamcallError) as caught:
            td(module, platform, xfam=xfam)
        assert caught.value.status == OPERAND_INVALID | 65

    def test_a_component_the_processor_lacks(self, module: ModuleVersion, platform: Platform) -> None:
        with pytest.raises(SeamcallError, match="bit 16"):
            td(module, platform, xfam=EVERYTHING | 1 << 16)


class TestXsave:
    # Standard format: offset + size of the last enabled user component, from the processor's sub-leaves.
    @pytest.mark.parametrize(
        ("xfam", "size"),
        [
            (X87_SSE, 576),
            (X87_SSE | AVX, 0x240 + 0x100),
            (X87_SSE | AVX | AVX512, 0x680 + 0x400),
            (X87_SSE | AVX | AVX512 | PKRU, 0xA80 + 8),
            (X87_SSE | CET | LBR | PT, 576),  # supervisor state has no place in the standard format
            (EVERYTHING, 0xB00 + 0x2000),
        ],
    )
    def test_maximum_size(self, module: ModuleVersion, platform: Platform, xfam: int, size: int) -> None:
        made = td(module, platform, xfam=xfam)
        assert value(made, LEAFD0).ecx == size
        assert cause(made, LEAFD0, "ecx", 0) == "module-rule: xsave-size"

    def test_xfd_needs_a_feature_that_supports_it(self, module: ModuleVersion, platform: Platform) -> None:
        # Only tile data (component 18) does: 0xD.18 ECX[2].
        assert value(td(module, platform), LEAFD1).eax == 0x1F
        without = td(module, platform, xfam=EVERYTHING & ~AMX)
        assert value(without, LEAFD1).eax == 0xF
        assert cause(without, LEAFD1, "eax", 4) == "module-rule: xfd"


class TestAttributes:
    def test_pks(self, module: ModuleVersion, platform: Platform) -> None:
        off, on = td(module, platform), td(module, platform, attributes=PKS)
        assert [value(made, LEAF7).ecx >> 31 for made in (off, on)] == [0, 1]
        assert cause(off, LEAF7, "ecx", 31) == cause(on, LEAF7, "ecx", 31) == "attributes.PKS"

    def test_lass_needs_the_processor(self, module: ModuleVersion, platform: Platform) -> None:
        with pytest.raises(SeamcallError, match="LASS") as caught:
            td(module, platform, attributes=LASS)
        assert caught.value.status == OPERAND_INVALID | 64
        native = {**platform.native, LEAF71: platform.native[LEAF71].with_("eax", 1 << 6)}
        made = td(module, Platform("with-lass", "", native, tsx_ctrl=True), attributes=LASS)
        assert value(made, LEAF71).eax >> 6 & 1 == 1
        assert cause(made, LEAF71, "eax", 6) == "attributes.LASS"

    def test_perfmon(self, module: ModuleVersion, platform: Platform) -> None:
        off, on = td(module, platform), td(module, platform, attributes=PERFMON)
        assert value(off, Leaf(0xA)) == ZERO
        assert value(on, Leaf(0xA)).eax == 0x08300805
        assert cause(off, Leaf(0xA), "eax", 0) == "attributes.PERFMON"

    def test_extended_perfmon_needs_perfmon_and_the_tds_own_feature_bit(self, module: ModuleVersion) -> None:
        granite = load_platform("granite-rapids")
        asked = {LEAF71: Registers(eax=1 << 8), Leaf(0x23, 0): Registers(eax=0xF)}
        counters = Leaf(0x23, 1)
        assert value(td(module, granite, asked, attributes=PERFMON), counters) == (0xFF, 0xF, 0, 0)
        assert cause(td(module, granite, asked), counters, "eax", 0) == "attributes.PERFMON"
        without = td(module, granite, attributes=PERFMON)
        assert value(without, counters) == ZERO
        assert cause(without, counters, "eax", 0) == "module-rule: perfmon-extended"

    def test_a_migratable_td_does_not_see_the_kind_of_core(self, module: ModuleVersion) -> None:
        granite = load_platform("granite-rapids")
        assert value(td(module, granite), Leaf(0x1A)).eax == 0x40000002
        old = {LEAF1: Registers(eax=0xC06F2)}
        assert value(td(module, granite, old, attributes=MIGRATABLE), Leaf(0x1A)) == ZERO

    @pytest.mark.parametrize("other", [DEBUG, PERFMON])
    def test_a_migratable_td_has_neither_debug_nor_perfmon(
        self, module: ModuleVersion, platform: Platform, other: int
    ) -> None:
        with pytest.raises(SeamcallError, match="a migratable TD cannot have"):
            td(module, platform, attributes=MIGRATABLE | other)


class TestSmallRules:
    def test_monitor_leaf(self, module: ModuleVersion, platform: Platform) -> None:
        with_monitor = td(module, platform, {LEAF1: Registers(ecx=1 << 3)})
        assert value(with_monitor, Leaf(5)) == (0x40, 0x40, 3, 0x1020)
        without = td(module, platform)
        assert value(without, Leaf(5)) == ZERO
        assert cause(without, Leaf(5), "eax", 6) == "module-rule: monitor"

    def test_no_key_locker(self, module: ModuleVersion, platform: Platform) -> None:
        made = td(module, platform)
        assert value(made, LEAF7).ecx >> 23 & 1 == 0
        assert cause(made, LEAF7, "ecx", 23) == "module-rule: key-locker"

    def test_linear_width_follows_la57(self, module: ModuleVersion, platform: Platform) -> None:
        wide = td(module, platform, {LEAF7: Registers(ecx=1 << 16)})
        narrow = td(module, platform)
        assert value(wide, Leaf(0x80000008)).eax == 57 << 8 | 46
        assert value(narrow, Leaf(0x80000008)).eax == 48 << 8 | 46
        assert cause(narrow, Leaf(0x80000008), "eax", 8) == "module-rule: linear-width"
        assert cause(narrow, Leaf(0x80000008), "eax", 0) == "native"
        assert cause(narrow, Leaf(0x80000008), "eax", 16) == "fixed-0"

    def test_signature(self, module: ModuleVersion, platform: Platform) -> None:
        eax, ebx, ecx, edx = value(td(module, platform), Leaf(0x21, 0))
        assert eax == 0
        assert b"".join(part.to_bytes(4, "little") for part in (ebx, edx, ecx)) == b"IntelTDX    "


class TestTopology:
    SMT, CORE, DIE = Registers(1, 2, 0x100), Registers(5, 24, 0x201), Registers(7, 96, 0x502)

    def levels(self, *levels: Registers) -> dict[Leaf, Registers]:
        return {Leaf(0x1F, n): level for n, level in enumerate(levels)}

    def test_all_zero_means_the_platforms(self, module: ModuleVersion, platform: Platform) -> None:
        made = td(module, platform)
        assert value(made, Leaf(0x1F, 0)) == (1, 2, 0x100, 0)
        assert value(made, Leaf(0x1F, 1)) == (7, 0x70, 0x201, 0)
        # A processor answers an invalid sub-leaf with its number.
        assert value(made, Leaf(0x1F, 4)) == (0, 0, 4, 0)
        assert cause(made, Leaf(0x1F, 1), "eax", 0) == "module-rule: topology"
        assert cause(made, Leaf(0x1F, 1), "edx", 0) == "dynamic"

    def test_configured_levels_stay(self, module: ModuleVersion, platform: Platform) -> None:
        made = td(module, platform, self.levels(self.SMT, self.CORE, self.DIE))
        assert [value(made, Leaf(0x1F, n)) for n in range(4)] == [self.SMT, self.CORE, self.DIE, ZERO]
        assert cause(made, Leaf(0x1F, 1), "eax", 0) == "configured"

    def test_leaf_b_follows(self, module: ModuleVersion, platform: Platform) -> None:
        made = td(module, platform, self.levels(self.SMT, self.CORE))
        assert value(made, Leaf(0xB, 0)) == self.SMT
        # The last sub-leaf walked is 0x1F.5, which is empty; only the level type is put in.
        assert value(made, Leaf(0xB, 1)) == (0, 0, 0x200, 0)
        assert value(made, Leaf(0xB, 2)) == ZERO
        assert cause(made, Leaf(0xB, 0), "eax", 0) == "module-rule: topology"

    @pytest.mark.parametrize(
        ("levels", "why"),
        [
            ((Registers(1, 2, 0), Registers(5, 24, 0x201)), "0x1f.0 is an invalid level and it is the first"),
            ((SMT,), "no core level"),
            ((SMT, Registers(5, 4, 0x301)), "no core level"),
            ((SMT, CORE, SMT), "types must rise"),
            ((SMT, CORE, CORE), "types must rise"),
            ((SMT, CORE, Registers(7, 96, 0x602)), "the highest is 5"),
            ((ZERO, CORE), "0x1f.0 is all zero"),
        ],
    )
    def test_malformed(
        self, module: ModuleVersion, platform: Platform, levels: tuple[Registers, ...], why: str
    ) -> None:
        with pytest.raises(SeamcallError, match=why) as caught:
            td(module, platform, self.levels(*levels))
        assert caught.value.status == 0xC000090400000000

    def test_older_versions_have_none_of_it(self, platform: Platform) -> None:
        made = td(load_module("1.5.01"), platform)
        assert made.read(Leaf(0x1F, 0)) is None
        assert made.read(Leaf(0xB, 0)) is None
        assert cause(made, Leaf(0x1F, 0), "eax", 0) == "ve"


@pytest.mark.parametrize(
    ("version", "config", "attributes", "status", "rcx"),
    [
        # A bit that nobody may set: every version names leaf and sub-leaf.
        ("1.0.3", {LEAF7: Registers(ebx=1)}, 0, CPUID_CONFIG_REFUSED, 0x7),
        ("1.5.01", {Leaf(7, 2): Registers(eax=1)}, 0, CPUID_CONFIG_REFUSED, 0x2_00000007),
        ("2.0.18", {LEAF1: Registers(ecx=1 << 5)}, 0, CPUID_CONFIG_REFUSED, 0xFFFFFFFF_00000001),
        # Family, model and stepping.
        ("1.5.01", {LEAF1: Registers(eax=0x12345)}, 0, CPUID_CONFIG_REFUSED, 0xFFFFFFFF_00000001),
        ("2.0.18", {LEAF1: Registers(eax=0x12345)}, MIGRATABLE, CPUID_CONFIG_REFUSED, 0xFFFFFFFF_00000001),
        # HLE without RTM: 1.5.05 is the first of the published sources that says where.
        ("1.0.3", {LEAF7: Registers(ebx=1 << 4)}, 0, CPUID_CONFIG_REFUSED, 0),
        ("1.5.01", {LEAF7: Registers(ebx=1 << 4)}, 0, CPUID_CONFIG_REFUSED, 0),
        ("1.5.05", {LEAF7: Registers(ebx=1 << 4)}, 0, CPUID_CONFIG_REFUSED, 0x7),
        ("1.5.34", {LEAF7: Registers(ebx=1 << 11)}, 0, CPUID_CONFIG_REFUSED, 0x7),
        ("2.0.18", {LEAF7: Registers(ebx=1 << 11)}, 0, CPUID_CONFIG_REFUSED, 0x7),
        # A malformed topology, and what is not about CPUID: no version does.
        ("1.5.05", {Leaf(0x1F, 0): Registers(ecx=0x600)}, 0, 0xC000_0904_0000_0000, 0),
        ("2.0.18", {Leaf(0x1F, 0): Registers(ecx=0x600)}, 0, 0xC000_0904_0000_0000, 0),
        ("2.0.18", {}, 1 << 5, OPERAND_INVALID | 64, 0),
    ],
)
def test_which_refusals_carry_rcx(
    version: str, config: dict[Leaf, Registers], attributes: int, status: int, rcx: int, platform: Platform
) -> None:
    with pytest.raises(SeamcallError) as caught:
        td(load_module(version), platform, config, attributes=attributes, xfam=X87_SSE)
    assert (hex(caught.value.status), hex(caught.value.rcx)) == (hex(status), hex(rcx))


@pytest.mark.parametrize("version", ["1.5.01", "1.5.05", "2.0.18"])
def test_tsx_without_its_msr_carries_no_rcx(version: str, platform: Platform) -> None:
    without = Platform("no IA32_TSX_CTRL", "", platform.native, tsx_ctrl=False)
    with pytest.raises(SeamcallError) as caught:
        td(load_module(version), without, {LEAF7: Registers(ebx=1 << 4 | 1 << 11)}, xfam=X87_SSE)
    assert (caught.value.status, caught.value.rcx) == (0xC0000921_0000010A, 0)
