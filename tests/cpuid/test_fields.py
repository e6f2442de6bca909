"""The table of CPUID fields, and looking things up in it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.cpuid import REGISTERS, Bit, Leaf, Register, Registers
from plugin.cpuid.fields import Field, UnknownField, all_fields, field_at, fields_of, find, name_of
from plugin.tdx_module import load_module, module_names

ENDS = {Leaf(one.leaf, one.subleaf and n) for one in all_fields() for n in (one.subleaf or (0,))}
LEAVES = sorted(ENDS, key=lambda leaf: leaf.order)

leaves = st.sampled_from(LEAVES)
registers: st.SearchStrategy[Register] = st.sampled_from(REGISTERS)
positions = st.integers(0, 31)


def field(text: str) -> Field:
    (found,) = find(text)
    assert isinstance(found, Field)
    return found


class TestTable:
    def test_ranges_fit_a_register(self) -> None:
        for one in all_fields():
            assert 0 <= one.low <= one.high < 32, one
            assert one.subleaf is None or one.subleaf[0] <= one.subleaf[1], one

    @pytest.mark.parametrize("leaf", LEAVES, ids=str)
    def test_fields_of_a_leaf_do_not_overlap_and_have_names_of_their_own(self, leaf: Leaf) -> None:
        here = [one for one in all_fields() if one.on(leaf)]
        taken = Counter((one.register, n) for one in here for n in range(one.low, one.high + 1))
        assert [place for place, times in taken.items() if times > 1] == []
        assert [name for name, times in Counter(one.name for one in here).items() if times > 1] == []

    def test_a_leaf_ignores_or_heeds_subleaves_but_not_both(self) -> None:
        heeds: dict[int, set[bool]] = {}
        for one in all_fields():
            heeds.setdefault(one.leaf, set()).add(one.subleaf is None)
        assert [hex(leaf) for leaf, answers in heeds.items() if len(answers) > 1] == []

    def test_a_flag_of_qemus_is_one_bit_except_the_split_ones(self) -> None:
        shared = Counter(one.qemu_name for one in all_fields() if one.qemu_name)
        split = {"family": 2, "model": 2, "vendor": 3, "kvmclock": 2}
        assert {name: times for name, times in shared.items() if times > 1} == split

    def test_what_kvm_itself_depends_on(self) -> None:
        critical = {one.qemu_name: one.bits()[0] for one in all_fields() if one.kvm_critical}
        assert critical == {
            "x2apic": Bit(Leaf(1), "ecx", 21),
            "xsave": Bit(Leaf(1), "ecx", 26),
            "smep": Bit(Leaf(7, 0), "ebx", 7),
            "smap": Bit(Leaf(7, 0), "ebx", 20),
            "fsgsbase": Bit(Leaf(7, 0), "ebx", 0),
            "pku": Bit(Leaf(7, 0), "ecx", 3),
            "la57": Bit(Leaf(7, 0), "ecx", 16),
        }

    @pytest.mark.parametrize("version", module_names())
    def test_dynamic_fields_cover_what_the_module_computes_late(self, version: str) -> None:
        for row in load_module(version).rows.values():
            for register, mask in zip(REGISTERS, row.dynamic, strict=True):
                for n in range(32):
                    if mask >> n & 1:
                        found = field_at(Bit(row.leaf, register, n))
                        assert found is not None, (row.leaf, register, n)
                        assert found.dynamic, found

    @pytest.mark.parametrize("version", module_names())
    def test_what_a_vmm_can_switch_on_has_a_name(self, version: str) -> None:
        for leaf, mask in load_module(version).rows.items():
            for register, bits in zip(REGISTERS, mask.allow_direct, strict=True):
                unnamed = [n for n in range(32) if bits >> n & 1 and field_at(Bit(leaf, register, n)) is None]
                assert unnamed == [], (leaf, register)


class TestFieldsOf:
    @given(leaves)
    def test_every_bit_once_and_in_order(self, leaf: Leaf) -> None:
        places = [(one.register, n) for one in fields_of(leaf) for n in range(one.low, one.high + 1)]
        assert places == [(register, n) for register in REGISTERS for n in range(32)]

    @given(leaves, registers, positions)
    def test_agrees_with_field_at(self, leaf: Leaf, register: Register, position: int) -> None:
        (covering,) = [one for one in fields_of(leaf) if one.register == register and one.low <= position <= one.high]
        found = field_at(Bit(leaf, register, position))
        assert (found or covering) == covering
        assert (found is None) == (covering.name == "")

    def test_a_leaf_nobody_knows_is_all_unnamed(self) -> None:
        fields = fields_of(Leaf(0x77, 3))
        assert len(fields) == 128
        assert {one.name for one in fields} == {""}
        assert {one.subleaf for one in fields} == {(3, 3)}

    @given(st.builds(Registers, *(st.integers(0, 0xFFFFFFFF),) * 4), leaves)
    def test_values_put_together_again_give_the_leaf(self, values: Registers, leaf: Leaf) -> None:
        again = dict.fromkeys(REGISTERS, 0)
        for one in fields_of(leaf):
            again[one.register] |= one.extract(values) << one.low
        assert Registers(**again) == values


class TestFind:
    @pytest.mark.parametrize("text", ["waitpkg", "WAITPKG", "7.0.ecx.5", "0x7.0.ecx[5]", "0x7.ecx.5", " waitpkg "])
    def test_one_bit_in_many_spellings(self, text: str) -> None:
        assert field(text).bits() == (Bit(Leaf(7, 0), "ecx", 5),)

    @pytest.mark.parametrize("text", ["avx512_vpopcntdq", "avx512-vpopcntdq", "avx512vpopcntdq"])
    def test_the_tables_name_and_qemus(self, text: str) -> None:
        assert (field(text).name, field(text).qemu_name) == ("avx512_vpopcntdq", "avx512-vpopcntdq")

    def test_a_register(self) -> None:
        names = [one.name for one in find("0x80000008.eax") if isinstance(one, Field)]
        assert names == ["phys_addr_bits", "virt_addr_bits", "guest_phys_addr_bits"]

    def test_a_leaf(self) -> None:
        assert {one.register for one in find("0x4.1") if isinstance(one, Field)} == set(REGISTERS)

    def test_a_split_field(self) -> None:
        assert [str(one) for one in find("family")] == ["base_family_id", "ext_family"]

    def test_a_bit_without_a_name_is_itself(self) -> None:
        assert find("7.0.ecx.15") == (Bit(Leaf(7, 0), "ecx", 15),)

    def test_every_name_finds_its_field(self) -> None:
        for one in all_fields():
            assert one in find(one.name)
            assert not one.qemu_name or one in find(one.qemu_name)

    @pytest.mark.parametrize(("text", "near"), [("waitpk", "waitpkg"), ("avx512-vni", "avx512"), ("x2apc", "x2apic")])
    def test_a_slip_of_the_pen(self, text: str, near: str) -> None:
        with pytest.raises(UnknownField, match=f"did you mean .*{near}"):
            find(text)

    @pytest.mark.parametrize("text", ["", "7.0.ecx.32", "7.0.ecx.-1", "7.0.ecx.x", "7.0.exx", "0x99.eax", "1.2.3.eax"])
    def test_nonsense(self, text: str) -> None:
        with pytest.raises(UnknownField, match="no CPUID field or bit"):
            find(text)


class TestNames:
    def test_qemus_name_first_then_the_tables_then_the_place(self) -> None:
        assert name_of(Bit(Leaf(7, 0), "ecx", 14)) == "avx512-vpopcntdq"
        assert name_of(Bit(Leaf(7, 0), "ecx", 4)) == "ospke"
        assert name_of(Bit(Leaf(7, 0), "ecx", 15)) == "0x7.0.ecx[15]"
        assert name_of(Bit(Leaf(1), "eax", 5)) == "base_model[1]"

    def test_a_missing_subleaf_is_the_first(self) -> None:
        assert field_at(Bit(Leaf(0x1E), "ebx", 0)) == field_at(Bit(Leaf(0x1E, 0), "ebx", 0)) is not None
        assert field_at(Bit(Leaf(1, 0), "ecx", 28)) == field_at(Bit(Leaf(1), "ecx", 28)) is not None

    def test_state_components(self) -> None:
        found = field_at(Bit(Leaf(0xD, 17), "ebx", 3))
        assert found is not None
        assert found.name == "xsave_offset"
        assert found.mask == 0xFFFFFFFF
