"""What holds for every version, processor and configuration."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import reduce
from operator import or_

from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from plugin.cpuid import REGISTERS, ZERO, Bit, Leaf, Register, Registers
from plugin.tdx_module import (
    Cause,
    ModuleVersion,
    Platform,
    SeamcallError,
    Td,
    TdParams,
    explain_xfam,
    init_td,
    load_module,
    load_platform,
    module_names,
    platform_names,
)
from tests.tdx_module.gates import xfam_features

XFAM_GROUPS = (0x4, 0xE4, 0x100, 0x200, 0x1800, 0x4000, 0x8000, 0x60000)
TSX = 1 << 4 | 1 << 11

modules: SearchStrategy[ModuleVersion] = st.sampled_from(module_names()).map(load_module)
platforms: SearchStrategy[Platform] = st.sampled_from(platform_names()).map(load_platform)
xfams = st.sets(st.sampled_from(XFAM_GROUPS)).map(lambda groups: reduce(or_, groups, 3))


@st.composite
def attributes(draw: DrawFn, module: ModuleVersion, platform: Platform) -> int:
    value = draw(st.integers(0, (1 << 64) - 1)) & module.attributes_on(platform)
    return value & ~(1 << 29)  # a migratable TD cannot be every processor; its rules have tests of their own


@st.composite
def levels(draw: DrawFn) -> list[Registers]:
    """A topology the module accepts, or none."""
    if draw(st.booleans()):
        return [ZERO] * 6
    more = draw(st.lists(st.sampled_from([3, 4, 5]), unique=True).map(sorted))
    types = ([1] if draw(st.booleans()) else []) + [2, *more]
    shift, count = st.integers(0, 31), st.integers(0, 0xFFFF)
    made = [Registers(draw(shift), draw(count), n | level << 8) for n, level in enumerate(types)]
    return made + [ZERO] * (6 - len(made))


@st.composite
def setups(draw: DrawFn) -> tuple[ModuleVersion, Platform, TdParams]:
    """Anything a VMM may legally ask for."""
    module, platform = draw(modules), draw(platforms)
    words = draw(st.binary(min_size=16 * len(module.configurable), max_size=16 * len(module.configurable)))
    chosen = [Registers(*quad) for quad in struct.iter_unpack("<4I", words)]
    config = {leaf: mask & choice for (leaf, mask), choice in zip(module.configurable.items(), chosen, strict=True)}
    first = config[Leaf(1)]
    if module.configurable[Leaf(1)].eax:
        config[Leaf(1)] = first.with_("eax", draw(st.sampled_from([0, platform.native_leaf(Leaf(1)).eax])))
    ebx = config[Leaf(7, 0)].ebx
    if ebx & TSX not in (0, TSX):
        config[Leaf(7, 0)] = config[Leaf(7, 0)].with_("ebx", ebx & ~TSX)
    if Leaf(0x1F, 0) in config:
        config.update({Leaf(0x1F, n): level for n, level in enumerate(draw(levels()))})
    params = TdParams(draw(attributes(module, platform)), draw(xfams), config, draw(st.integers(100_000, 10_000_000)))
    return module, platform, params


def decided(td: Td) -> Iterator[tuple[Bit, int, Cause]]:
    """Every bit with its value and cause."""
    for leaf, values in td.cpuid.items():
        for register, value in zip(REGISTERS, values, strict=True):
            for n, cause in enumerate(td.causes(leaf, register)):
                yield Bit(leaf, register, n), value >> n & 1, cause


def bit_of(mask: Registers, bit: Bit) -> int:
    return mask.get(bit.register) >> bit.position & 1


@given(setups())
def test_configuring_what_was_read_back_gives_the_same_td(setup: tuple[ModuleVersion, Platform, TdParams]) -> None:
    module, platform, params = setup
    first = init_td(module, platform, params)
    again = {leaf: first.cpuid[leaf] & mask for leaf, mask in module.configurable.items()}
    assert init_td(module, platform, params._replace(cpuid_config=again)).cpuid == first.cpuid


@given(setups(), st.data())
def test_a_bit_outside_the_masks_is_refused_and_named(
    setup: tuple[ModuleVersion, Platform, TdParams], data: st.DataObject
) -> None:
    module, platform, params = setup
    leaf = data.draw(st.sampled_from(list(module.rows)))
    register: Register = data.draw(st.sampled_from(REGISTERS))
    bit = Bit(leaf, register, data.draw(st.integers(0, 31)))
    assume(not bit_of(module.configurable.get(leaf, ZERO), bit))
    asked = params.cpuid_config.get(leaf, ZERO)
    wrong = asked.with_(register, asked.get(register) | 1 << bit.position)
    try:
        init_td(module, platform, params._replace(cpuid_config={**params.cpuid_config, leaf: wrong}))
    except SeamcallError as error:
        assert error.status == 0xC000010000000045
        assert error.rcx & 0xFFFFFFFF == leaf.number
        assert error.rcx >> 32 == (0xFFFFFFFF if leaf.subleaf is None else leaf.subleaf)
        assert str(leaf) in error.why
    else:
        raise AssertionError(f"{bit} was accepted")


@given(setups(), st.data())
def test_one_choice_changes_that_bit_and_what_a_named_rule_derives(
    setup: tuple[ModuleVersion, Platform, TdParams], data: st.DataObject
) -> None:
    module, platform, params = setup
    choices = [
        Bit(leaf, register, n)
        for leaf, mask in module.configurable.items()
        for register in REGISTERS
        for n in range(32)
        if mask.get(register) >> n & 1 and (leaf, register) != (Leaf(1), "eax") and leaf.number != 0x1F
    ]
    bit = data.draw(st.sampled_from(choices))
    both = TSX if bit.leaf == Leaf(7, 0) and bit.register == "ebx" and TSX >> bit.position & 1 else 1 << bit.position
    flipped = dict(params.cpuid_config)
    flipped[bit.leaf] = flipped[bit.leaf].with_(bit.register, flipped[bit.leaf].get(bit.register) ^ both)
    before, after = init_td(module, platform, params), init_td(module, platform, params._replace(cpuid_config=flipped))
    for (other, old, was), (_, new, now) in zip(decided(before), decided(after), strict=True):
        if old == new:
            continue
        if other.leaf == bit.leaf and other.register == bit.register and both >> other.position & 1:
            assert was.kind == now.kind == "configured"
        else:
            assert "module-rule" in (was.kind, now.kind), other


@given(setups())
def test_cause_and_value_agree(setup: tuple[ModuleVersion, Platform, TdParams]) -> None:
    module, platform, params = setup
    td = init_td(module, platform, params)
    for bit, value, cause in decided(td):
        row = module.rows[bit.leaf]
        native = bit_of(platform.native_leaf(bit.leaf), bit)
        asked = bit_of(params.cpuid_config.get(bit.leaf, ZERO), bit)
        match cause.kind:
            case "fixed-0":
                assert value == 0, bit
                assert bit_of(row.fixed0_or_dynamic, bit)
            case "fixed-1":
                assert value == 1, bit
                assert bit_of(row.fixed1, bit)
            case "dynamic":
                assert value == 0, bit
                assert bit_of(row.dynamic, bit)
            case "native":
                assert value == native, bit
                assert not bit_of(row.config_direct, bit)
            case "configured":
                assert bit_of(row.configurable, bit)
                assert value == asked, bit
                assert native or bit_of(row.config_direct, bit)
            case "xfam":
                assert value == params.xfam >> int(cause.detail) & 1, bit
            case "attributes":
                number = {"PKS": 30, "LASS": 27, "PERFMON": 63}[cause.detail]
                assert value == params.attributes >> number & 1, bit
            case "module-rule":
                assert cause.detail in module.rules
            case kind:
                raise AssertionError(f"{bit}: {kind}")


@given(setups())
def test_a_register_of_causes_equals_its_bits_causes(setup: tuple[ModuleVersion, Platform, TdParams]) -> None:
    td = init_td(*setup)
    for leaf in td.cpuid:
        for register in REGISTERS:
            assert td.causes(leaf, register) == tuple(td.cause(Bit(leaf, register, n)) for n in range(32))


@given(setups())
def test_forced_bits_are_forced(setup: tuple[ModuleVersion, Platform, TdParams]) -> None:
    module, platform, params = setup
    td = init_td(module, platform, params)
    for leaf, value in td.cpuid.items():
        row = module.rows[leaf]
        assert value & row.fixed1 == row.fixed1, leaf
        if leaf != Leaf(1):  # family/model 0 takes the platform's value as a whole
            assert value & row.fixed0_or_dynamic == ZERO, leaf


@given(setups())
def test_no_feature_without_its_state(setup: tuple[ModuleVersion, Platform, TdParams]) -> None:
    module, _, params = setup
    td = init_td(*setup)
    for n, bits in xfam_features(module).items():
        if not params.xfam >> n & 1:
            assert [bit for bit in bits if bit.of(td.cpuid)] == []


@given(modules, platforms, st.integers(0, 0x7FFFF))
def test_an_xfam_is_accepted_exactly_when_nothing_speaks_against_it(
    module: ModuleVersion, platform: Platform, xfam: int
) -> None:
    legal = not explain_xfam(xfam) and not xfam & ~module.xfam_supported(platform)
    try:
        init_td(module, platform, TdParams(0, xfam, {}))
    except SeamcallError as error:
        assert not legal
        assert error.status == 0xC000010000000041
    else:
        assert legal
