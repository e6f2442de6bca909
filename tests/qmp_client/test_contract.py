"""``contract``: what differs between two module versions, and which guarantees that breaks."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.cpuid import REGISTERS, ZERO, Bit, Leaf, Registers
from plugin.cpuid.fields import field_at
from plugin.tdx_module import ModuleVersion, Platform, SeamcallError, Td, TdParams, init_td, load_module, load_platform
from plugin.tdx_module import module_names as names
from plugin.tdx_module.classes import class_of, classes_of
from plugin.tdx_module.guests import GUESTS, find_guest
from qmp_client.contract.compare import Contract, Guarantee, compare
from qmp_client.contract.lines import groups, noteworthy, spans
from qmp_client.contract.sight import Sights
from tests.waiting import PATIENCE

versions = st.sampled_from(names()).map(load_module)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qmp_client.cli.entry", "contract", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def named(contract: Contract, guarantee: Guarantee) -> set[str]:
    return {change.name or str(change.bit) for change in contract.broken(guarantee)}


class TestClasses:
    @pytest.mark.parametrize(
        ("version", "bit", "said"),
        [
            ("1.0", Bit(Leaf(7, 0), "ebx", 16), "xfam[5]"),
            ("1.5.05", Bit(Leaf(7, 0), "ebx", 16), "allow (xfam[5])"),
            ("1.5.05", Bit(Leaf(7, 0), "ecx", 3), "xfam[9]"),
            ("1.5.05", Bit(Leaf(7, 0), "ecx", 5), "allow"),
            ("1.5.05", Bit(Leaf(7, 0), "ecx", 31), "attributes.PKS"),
            ("1.5.05", Bit(Leaf(7, 0), "ecx", 23), "module-rule: key-locker"),
            ("1.5.05", Bit(Leaf(7, 0), "ecx", 4), "dynamic"),
            ("1.5.05", Bit(Leaf(1), "eax", 4), "configurable (module-rule: family/model)"),
            ("1.5.05", Bit(Leaf(1), "ecx", 31), "fixed-1"),
            ("1.5.05", Bit(Leaf(1), "ecx", 21), "native"),
            ("1.5.05", Bit(Leaf(5), "eax", 0), "native (module-rule: monitor)"),
            ("1.5.05", Bit(Leaf(0x15), "ebx", 0), "module-rule: tsc"),
            ("1.5.05", Bit(Leaf(0x6), "eax", 0), "ve"),
            ("2.0.18", Bit(Leaf(0x6), "eax", 0), "#VE until REDUCE_VE"),
            ("2.0.18", Bit(Leaf(0x77), "eax", 0), "ve"),
        ],
    )
    def test_of_a_bit(self, version: str, bit: Bit, said: str) -> None:
        assert str(class_of(load_module(version), bit)) == said

    @settings(deadline=None)
    @given(versions)
    def test_follow_the_masks(self, module: ModuleVersion) -> None:
        for row in module.rows.values():
            for place, one in enumerate(classes_of(module, row.leaf)):
                register, n = REGISTERS[place // 32], place % 32
                assert one.choosable == bool(row.configurable.get(register) >> n & 1), (row.leaf, register, n)


@settings(deadline=None)
@given(versions)
def test_a_version_keeps_its_contract_with_itself(module: ModuleVersion) -> None:
    contract = compare(module, module)
    assert contract.changes == ()
    assert contract.kept


@settings(deadline=None)
@given(versions, versions)
def test_the_other_way_round_the_same_bits_change(old: ModuleVersion, new: ModuleVersion) -> None:
    there, back = compare(old, new), compare(new, old)
    assert [(one.bit, one.before, one.after) for one in there.changes] == [
        (one.bit, one.after, one.before) for one in back.changes
    ]
    assert there.attributes.gained == back.attributes.lost
    assert there.rules.lost == back.rules.gained


def everything(module: ModuleVersion) -> dict[Leaf, Registers]:
    config = {leaf: mask for leaf, mask in module.configurable.items() if leaf.number != 0x1F}
    config[Leaf(1)] = config[Leaf(1)].with_("eax", 0)
    return config


@lru_cache
def tds(module: ModuleVersion) -> list[Td]:
    """TDs with and without everything, on processors that have everything and nothing."""
    made = []
    for ones in (True, False):
        native = dict.fromkeys(module.rows, Registers(*(0xFFFFFFFF * ones,) * 4))
        native |= {Leaf(0): Registers(0xFFFF), Leaf(0x80000000): Registers(0xFFFFFFFF), Leaf(0xD, 0): Registers(3)}
        native |= {Leaf(0x1F, n): Registers(ecx=n | kind << 8) for n, kind in enumerate((1, 2, 0, 0, 0, 0))}
        platform = Platform("probe", "", native, tsx_ctrl=True)
        supported = module.attributes_on(platform) & ~(1 << 29)
        for attributes, xfam in ((0, 3), (supported, module.xfam_supported(platform) | 3)):
            for config in ({}, everything(module)):
                made.append(init_td(module, platform, TdParams(attributes, xfam, config, 2_500_000)))
    return made


def outcomes(module: ModuleVersion, bit: Bit) -> list[int | None]:
    """How a bit turns out in those TDs, and whether a VMM may set it."""
    values = [td.read(bit.leaf) for td in tds(module)]
    said: list[int | None] = [None if value is None else bit.of({bit.leaf: value}) for value in values]
    return [*said, module.configurable.get(bit.leaf, ZERO).get(bit.register) >> bit.position & 1]


@pytest.mark.parametrize(
    ("old", "new"), [("1.0", "1.5.05"), ("1.5.05", "1.5.34"), ("1.5.34", "2.0.18"), ("2.0.18", "future")]
)
def test_every_feature_that_changes_really_differs_in_some_td(old: str, new: str) -> None:
    before, after = load_module(old), load_module(new)
    zero = {"fixed-0", "xfam[8]", "module-rule: key-locker", "attributes.PERFMON"}
    for change in compare(before, after).changes:
        field = field_at(change.bit)
        number = field is not None and field.width > 1
        nothing_to_read = change.after.startswith("#VE") or change.after == "dynamic"
        # Bits of numbers, and bits that were zero for one reason and are for another, need not differ.
        if number or nothing_to_read or change.leaf == 0xD or {change.before, change.after} <= zero:
            continue
        assert outcomes(before, change.bit) != outcomes(after, change.bit), change


class TestGuarantees:
    def test_1_0_to_1_5_05(self) -> None:
        contract = compare(load_module("1.0"), load_module("1.5.05"))
        assert contract.broken(Guarantee.FIXED_STAYS) == []
        assert named(contract, Guarantee.NOTHING_APPEARS) == {
            *("srbds_ctrl", "tsx_force_abort", "invtsc"),
            *("intel-psfd", "ipred-ctrl", "rrsba-ctrl", "bhi-ctrl"),
        }
        assert {change.leaf for change in contract.broken(Guarantee.STAYS_CONFIGURABLE)} == {4}
        assert {change.name for change in contract.changes if change.critical} == {"la57"}
        assert contract.attributes.gained == ("LASS", "MIGRATABLE")
        assert "topology" in contract.rules.gained
        off = {change.name for change in contract.changes if change.off_unless_set}
        assert {"avx", "avx512f", "la57", "hle", "umip"} <= off
        assert not {"family", "lam", "mcdt-no"} & off

    def test_another_reason_to_be_configurable_breaks_nothing(self) -> None:
        contract = compare(load_module("1.5.05"), load_module("1.5.34"))
        moved = [change for change in contract.changes if change.leaf == 0x1F]
        assert {(change.before, change.after) for change in moved} == {
            ("configurable (module-rule: topology)", "configurable (module-rule: topology-levels)")
        }
        assert all(change.breaks == () for change in moved)

    def test_a_native_bit_that_becomes_fixed_1(self) -> None:
        """Nothing appears where the processor had it, but elsewhere it does."""
        base = load_module("2.0.18")
        row = base.rows[Leaf(1)]
        forced = row._replace(fixed1=row.fixed1.with_("ecx", row.fixed1.ecx | 1 << 21))
        changed = ModuleVersion(
            "changed",
            {**base.rows, Leaf(1): forced},
            rules=base.rules,
            attributes=(base.attributes_supported, base.attributes_fixed1),
            attributes_need=base.attributes_need,
            xfam=(base.xfam_mask, base.xfam_fixed1),
            family_models=base.family_models,
            minimum_native_leaf=base.minimum_native_leaf,
            guest=base.guest,
            rcx=base.rcx,
            source="",
            notes=(),
        )
        has = load_platform("granite-rapids")
        without = {**has.native, Leaf(1): has.native[Leaf(1)]._replace(ecx=0)}
        lacks = Platform("without x2APIC", "", without, tsx_ctrl=True)
        assert named(compare(base, changed), Guarantee.NOTHING_APPEARS) == {"x2apic"}
        assert named(compare(base, changed, lacks), Guarantee.NOTHING_APPEARS) == {"x2apic"}
        assert compare(base, changed, has).kept
        assert [change.name for change in compare(base, changed, has).changes] == ["x2apic"]

    def test_reserved_native_bits_do_not_appear_on_any_processor(self) -> None:
        contract = compare(load_module("1.5.05"), load_module("1.5.34"))
        appeared = contract.broken(Guarantee.NOTHING_APPEARS)
        assert {change.name for change in appeared} >= {"tlb_4k_page", "is_fully_associative"}
        assert all(change.name for change in appeared)

    def test_what_a_processor_lacks_does_not_appear_on_it(self) -> None:
        old, new = load_module("1.0"), load_module("1.5.05")
        contract = compare(old, new, load_platform("emerald-rapids"))
        platform = load_platform("emerald-rapids")
        appeared = contract.broken(Guarantee.NOTHING_APPEARS)
        assert appeared
        assert all(one.bit.of({one.bit.leaf: platform.native_leaf(one.bit.leaf)}) for one in appeared)
        assert "srbds_ctrl" not in named(contract, Guarantee.NOTHING_APPEARS)

    def test_the_made_up_version_breaks_each_once(self) -> None:
        contract = compare(load_module("2.0.18"), load_module("future"))
        assert named(contract, Guarantee.FIXED_STAYS) == {"hypervisor"}
        assert named(contract, Guarantee.NOTHING_APPEARS) == {
            *("cet_sss", "0x26.eax[0]", "0x26.ebx[0]", "0x26.ebx[2]"),
        }
        assert named(contract, Guarantee.STAYS_CONFIGURABLE) == {"cldemote"}

    def test_models_are_asked_for_every_bit(self) -> None:
        contract = compare(
            load_module("2.0.18"),
            load_module("future"),
            models=lambda bit: ["Some-Model"] if bit == Bit(Leaf(7, 0), "ecx", 25) else [],
        )
        assert [change.name for change in contract.changes if change.models] == ["cldemote"]


class TestLines:
    @given(st.sets(st.integers(0, 31)).map(sorted))
    def test_spans_say_every_position(self, positions: list[int]) -> None:
        said: list[int] = []
        for word in spans(positions).split(",") if positions else []:
            high, _, low = word.partition(":")
            said += range(int(low or high), int(high) + 1)
        assert said == positions

    def test_every_change_is_in_one_group(self) -> None:
        changes = compare(load_module("1.0"), load_module("1.5.05")).changes
        grouped = [change for group in groups(changes) for change in group.changes]
        assert sorted(grouped, key=str) == sorted(changes, key=str)

    def test_a_zero_or_a_ve_instead_of_a_ve_is_not_noteworthy(self) -> None:
        for old, new in (("1.0", "1.5.05"), ("1.5.05", "1.5.34")):
            shown = noteworthy(compare(load_module(old), load_module(new)).changes)
            assert shown
            assert not [
                one for one in shown if one.before == "ve" and (one.after[:3] == "#VE" or one.after == "fixed-0")
            ]
            assert all(one.name or one.breaks for one in shown)


class TestCommand:
    def test_a_broken_guarantee_is_exit_status_1(self) -> None:
        result = run("1.0", "1.5.05")
        assert (result.returncode, result.stderr) == (1, "")
        assert "TDX module 1.0 -> 1.5.05, any processor" in result.stdout
        assert "kept    1 no fixed-1 bit" in result.stdout
        assert "BROKEN  2 no new default-on or fixed-1 bit appears: 7 bits" in result.stdout
        assert "KVM relies on (marked !): la57" in result.stdout
        assert "Leaves that raised #VE and have a value now: 0x5 0x7.2 " in result.stdout
        assert len(result.stdout.splitlines()) < 60

    def test_kept_guarantees_are_exit_status_0(self) -> None:
        result = run("1.5.34", "2.0.18", "--platform", "granite-rapids")
        assert result.returncode == 0
        assert "granite-rapids" in result.stdout
        assert "BROKEN" not in result.stdout
        assert "amx-fp16" in result.stdout

    def test_on_this_machine(self) -> None:
        result = run("2.0.18", "future", "--platform", "native")
        assert "TDX module 2.0.18 -> future, native" in result.stdout

    def test_json(self) -> None:
        contract = json.loads(run("2.0.18", "future", "--format", "json").stdout)
        (cldemote,) = [change for change in contract["changes"] if change["name"] == "cldemote"]
        assert (cldemote["before"], cldemote["after"]) == ("allow", "fixed-0")
        assert (cldemote["leaf"], cldemote["subleaf"], cldemote["register"], cldemote["position"]) == (7, 0, "ecx", 25)
        assert cldemote["breaks"] == [Guarantee.STAYS_CONFIGURABLE.value]

    def test_markdown(self) -> None:
        result = run("2.0.18", "future", "--format", "markdown")
        assert result.stdout.startswith("## TDX module 2.0.18 -> future")
        assert "| 3 | allow | fixed-0 | cldemote |" in result.stdout

    def test_all_shows_bits_without_a_name(self) -> None:
        assert "0x26.ecx[31:0]" in run("2.0.18", "future", "--all").stdout
        assert "0x26.ecx" not in run("2.0.18", "future").stdout

    @pytest.mark.parametrize(
        ("arguments", "hint"),
        [(["1.5.5", "2.0.18"], "1.5.05"), (["1.0", "1.5.05", "--platform", "emerald"], "emerald-rapids")],
    )
    def test_unknown_names(self, arguments: list[str], hint: str) -> None:
        result = run(*arguments)
        assert result.returncode == 2
        assert hint in result.stderr


def test_a_refusal_is_not_hidden() -> None:
    with pytest.raises(SeamcallError):
        init_td(
            load_module("future"), load_platform("emerald-rapids"), TdParams(0, 3, {Leaf(7, 0): Registers(ecx=1 << 25)})
        )


class TestWhatAGuestSees:
    """The same VMM, the same guest, another module."""

    @staticmethod
    def sights(old: str, new: str, guest: str, platform: str | None = None) -> Sights:
        processor = load_platform(platform) if platform else None
        return compare(load_module(old), load_module(new), processor, guest=find_guest(guest)).sights

    def test_the_headline(self) -> None:
        lost = {change.name: change for change in self.sights("1.5.05", "1.5.34", "linux").lost}
        assert lost.keys() >= {"mce", "mca", "mtrr", "tsc-deadline"}
        assert {name for name, change in lost.items() if change.certain} == {"mce", "mca", "mtrr", "core-capability"}
        assert (lost["mca"].before, lost["mca"].after) == ("native", "0 (paravirt.mca)")
        first = run("1.5.05", "1.5.34").stdout.splitlines()[1]
        assert first.startswith("linux no longer sees: mce mtrr mca core-capability; ")
        assert "tsc-deadline" in first
        assert "**linux no longer sees: mce" in run("1.5.05", "1.5.34", "--format", "markdown").stdout

    def test_a_guest_that_wants_them_keeps_them(self) -> None:
        guest = "reduce-ve,paravirt=mca+mtrr+tsc-deadline"
        lost = {change.name for change in self.sights("1.5.05", "1.5.34", guest).lost}
        assert not lost & {"mce", "mca", "mtrr", "tsc-deadline"}
        assert "core-capability" in lost

    @pytest.mark.parametrize("guest", ["linux-6.6", "tdvf", "td"])
    def test_nor_does_one_that_does_not_reduce_ve(self, guest: str) -> None:
        lost = {change.name for change in self.sights("1.5.05", "1.5.34", guest).lost}
        assert not lost & {"mce", "mca", "mtrr", "tsc-deadline", "core-capability"}

    def test_leaves_that_the_module_answers_now(self) -> None:
        sights = self.sights("1.5.05", "1.5.34", "linux")
        assert {"0x2", "0x6", "0x80000002"} <= set(sights.answered)
        assert "0x2" not in self.sights("1.5.05", "1.5.34", "tdvf").answered

    def test_on_a_processor_only_what_it_has_is_lost(self) -> None:
        anywhere = {change.name for change in self.sights("1.5.05", "1.5.34", "linux").lost}
        here = {change.name for change in self.sights("1.5.05", "1.5.34", "linux", "emerald-rapids").lost}
        native = load_platform("emerald-rapids").native_leaf(Leaf(1))
        assert here <= anywhere
        assert ("dca" in here) == bool(native.ecx >> 18 & 1)

    @settings(deadline=None, max_examples=30)
    @given(versions, versions, st.sampled_from([*GUESTS, "reduce-ve,paravirt=mca"]))
    def test_a_loss_one_way_is_a_gain_the_other_way(self, old: ModuleVersion, new: ModuleVersion, guest: str) -> None:
        there, back = (compare(*pair, guest=find_guest(guest)).sights for pair in ((old, new), (new, old)))
        assert [change.name for change in there.lost] == [change.name for change in back.gained]
        assert compare(old, old, guest=find_guest(guest)).sights.lost == ()

    def test_an_unknown_guest(self) -> None:
        result = run("1.5.05", "1.5.34", "--guest", "linux-5.4")
        assert (result.returncode, result.stdout) == (2, "")
        assert "no guest and no control of a guest is called 'linux-5.4'" in result.stderr
