"""The 2024 proposal's sub-commands, one test for each rule of docs/kvm-proposal-abi.md."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.cpuid import REGISTERS, ZERO, Bit, Leaf, Registers
from plugin.kvm.device.vcpu import Vcpu
from plugin.kvm.device.vm import Vm
from plugin.kvm.dialects.proposal import known_cpuid
from plugin.kvm.dialects.td import read_cpuid
from plugin.kvm.policy import UNSUPPORTED_CPUID
from plugin.kvm.uapi import proposal as p
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.constants import TDX_SUBCOMMANDS
from plugin.kvm.uapi.cpuid import entry
from plugin.tdx_module import load_module, load_platform, module_names
from tests.kvm.device.conftest import Vmm

if TYPE_CHECKING:
    from plugin.kvm.contract import Device
    from plugin.tdx_module import ModuleVersion, Platform

WIDTH = Leaf(0x80000008)
WIDTH_48 = entry(WIDTH, Registers(eax=48 << 16))
HT = Bit(Leaf(1), "edx", 28)
EVERYTHING = [(first + number, 0, 0, 0) for first in (0, 0x80000000) for number in range(0x80)]
LEAF_1 = (1, 0, 0, 0)
SIGNIFICANT = 1


@pytest.fixture
def vmm(module: ModuleVersion, platform: Platform) -> Vmm:
    return Vmm(module, platform, "proposal")


def td_of(vm: Device) -> Vm:
    assert isinstance(vm, Vm)
    assert vm.td is not None
    return vm


def vcpu_of(vmm: Vmm, vm: Device) -> Vcpu:
    vcpu = vmm.open(vm, "KVM_CREATE_VCPU", 0)
    assert isinstance(vcpu, Vcpu)
    return vcpu


# Telling the two interfaces apart


def test_the_ids_are_none_of_linuxs() -> None:
    assert not {p.TDX_GET_CONFIG_CPUID, p.TDX_INIT_VCPU_CPUID} & TDX_SUBCOMMANDS.keys()
    assert min(p.TDX_GET_CONFIG_CPUID, p.TDX_INIT_VCPU_CPUID) > 100 * max(TDX_SUBCOMMANDS)


def test_an_upstream_kvm_answers_the_probe_with_einval(module: ModuleVersion, platform: Platform) -> None:
    upstream = Vmm(module, platform)
    with upstream.fails(errno.EINVAL):
        upstream.config_cpuid(upstream.td_vm(), 0)
    assert upstream.kvm.host.refusals.as_json() == [], "a probe is not why anything fails"


def test_the_probe_needs_no_room(vmm: Vmm) -> None:
    with vmm.fails(errno.E2BIG):
        vmm.config_cpuid(vmm.td_vm(), 0)


def test_get_cpuid_does_not_exist(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.get_cpuid(vcpu_of(vmm, vmm.initialised_td()))
    assert "KVM_TDX_GET_CPUID does not exist" in vmm.kvm.host.refusals.as_json()[-1]["why"]


# KVM_TDX_CAPABILITIES


def test_capabilities_reports_attributes_and_xfam_but_no_cpuid(
    vmm: Vmm, module: ModuleVersion, platform: Platform
) -> None:
    upstream = Vmm(module, platform)
    assert vmm.capabilities(vmm.td_vm(), 0) == (*upstream.capabilities(upstream.td_vm())[:2], [])


# KVM_TDX_GET_CONFIG_CPUID


def test_too_little_room_is_e2big_with_the_number_needed(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    needed = len(vmm.config_cpuid(vm))
    address = vmm.place(s.CPUID2.pack(needed - 1, 0) + bytes(needed * 40))
    with vmm.fails(errno.E2BIG):
        vmm.command(vm, "GET_CONFIG_CPUID", address)
    assert vmm.back(address, s.CPUID2) == (needed, 0)
    assert not any(vmm.memory.read(address + s.CPUID2.size, needed * 40)), "no entry is written"
    assert len(vmm.config_cpuid(vm, needed)) == needed


def test_config_takes_no_flags_and_no_padding(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    with vmm.fails(errno.EINVAL):
        vmm.command(vm, "GET_CONFIG_CPUID", vmm.place(bytes(s.CPUID2.size)), flags=1)
    with vmm.fails(errno.EINVAL):
        vmm.command(vm, "GET_CONFIG_CPUID", vmm.place(s.CPUID2.pack(0, 1)))


@pytest.mark.parametrize("name", module_names())
def test_every_configurable_bit_is_shown_or_set_to_1_or_unsupported(name: str) -> None:
    """And nothing else is: three parts of what the module can configure, and the address width."""
    module = load_module(name)
    vmm = Vmm(module, load_platform("granite-rapids"), "proposal")
    shown = vmm.config_cpuid(vmm.td_vm())
    known = known_cpuid()
    for leaf, mask in module.configurable.items():
        of_kvm = known.get(leaf) or known.get(Leaf(leaf.number)) or ZERO
        unsupported = UNSUPPORTED_CPUID.get(leaf, ZERO)
        expected = (mask & of_kvm).without(unsupported)
        if leaf == WIDTH:
            expected = expected.with_("eax", expected.eax | 0xFF0000)
        assert shown.get(leaf, ZERO) == expected, leaf
    assert shown[WIDTH].eax & 0xFF0000 == 0xFF0000, "the address width is KVM's own, whatever the module has"
    assert shown.keys() <= module.configurable.keys() | {WIDTH}


def test_an_entry_tells_whether_it_has_a_sub_leaf(vmm: Vmm) -> None:
    shown = vmm.config_cpuid(vmm.td_vm())
    assert Leaf(1) in shown
    assert Leaf(7, 0) in shown


# KVM_TDX_INIT_VM


def test_bits_that_kvm_does_not_know_are_set_to_1(vmm: Vmm) -> None:
    assert not vmm.config_cpuid(vmm.td_vm())[HT.leaf].get(HT.register) >> HT.position & 1
    vm = td_of(vmm.initialised_td())
    assert vm.td is not None
    assert HT.of(vm.td.td.params.cpuid_config) == 1
    assert HT.of(vm.td.td.cpuid) == 1
    assert str(vm.td.td.cause(HT)) == "configured"


def test_a_known_bit_is_0_unless_chosen(vmm: Vmm) -> None:
    vm = td_of(vmm.initialised_td())
    assert vm.td is not None
    chosen = vm.td.td.params.cpuid_config
    for leaf, mask in vmm.config_cpuid(vmm.td_vm()).items():
        assert chosen.get(leaf, ZERO) & mask == ZERO


def test_a_hidden_bit_cannot_be_chosen(vmm: Vmm) -> None:
    data = vmm.init_data([WIDTH_48, entry(HT.leaf, Registers(edx=1 << HT.position))])
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), data)
    assert "0x1.edx[28]" in vmm.kvm.host.refusals.as_json()[-1]["why"]


@pytest.mark.parametrize("hidden", [Registers(ebx=1 << 4), Registers(ebx=1 << 11), Registers(ecx=1 << 5)])
def test_hle_rtm_and_waitpkg_are_refused_and_0(vmm: Vmm, hidden: Registers) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data([WIDTH_48, entry(Leaf(7, 0), hidden)]))
    vm = td_of(vmm.initialised_td())
    assert vm.td is not None
    assert vm.td.td.params.cpuid_config[Leaf(7, 0)] & hidden == ZERO


@pytest.mark.parametrize("name", module_names())
@pytest.mark.parametrize("on", ["sapphire-rapids", "emerald-rapids", "granite-rapids"])
def test_every_module_takes_what_kvm_sets_to_1(name: str, on: str) -> None:
    vmm = Vmm(load_module(name), load_platform(on), "proposal")
    assert td_of(vmm.initialised_td()).td is not None


# KVM_TDX_INIT_VCPU_CPUID


def test_all_readable_leaves_are_what_upstream_reads(vmm: Vmm) -> None:
    vm = td_of(vmm.initialised_td())
    assert vm.td is not None
    read = {e.leaf: e.registers for e in vmm.init_vcpu_cpuid(vcpu_of(vmm, vm), EVERYTHING)}
    upstream = {e.leaf: e.registers for e in read_cpuid(vm.td.td, 48)}
    assert {leaf: read[leaf] for leaf in upstream} == upstream


def test_leaves_come_in_the_order_asked_for_and_each_once(vmm: Vmm) -> None:
    vcpu = vcpu_of(vmm, vmm.initialised_td())
    leaves = [(7, 1, SIGNIFICANT, 0), LEAF_1, (7, 1, SIGNIFICANT, 0), (7, 0, SIGNIFICANT, 0)]
    found = vmm.init_vcpu_cpuid(vcpu, leaves)
    assert [e.leaf for e in found] == [Leaf(7, 1), Leaf(1), Leaf(7, 0)]


def test_a_leaf_without_the_flag_stands_for_all_its_sub_leaves(vmm: Vmm) -> None:
    found = vmm.init_vcpu_cpuid(vcpu_of(vmm, vmm.initialised_td()), [(4, 0, 0, 0)])
    assert [e.leaf for e in found] == [Leaf(4, n) for n in range(len(found))]
    assert len(found) > 1


@pytest.mark.parametrize("leaf", [(0x40000000, 0, 0, 0), (0x2, 0, 0, 0), (0x80000002, 0, 0, 0), (7, 9, 1, 0)])
def test_what_the_td_does_not_have_is_left_out(vmm: Vmm, leaf: tuple[int, int, int, int]) -> None:
    assert vmm.init_vcpu_cpuid(vcpu_of(vmm, vmm.initialised_td()), [leaf]) == []


def test_the_address_width_is_the_tds(vmm: Vmm) -> None:
    found = vmm.init_vcpu_cpuid(vcpu_of(vmm, vmm.initialised_td()), [(WIDTH.number, 0, 0, 0)])
    assert found[0].registers.eax >> 16 & 0xFF == 48


def test_what_was_read_is_the_vcpus_cpuid(vmm: Vmm) -> None:
    vcpu = vcpu_of(vmm, vmm.initialised_td())
    found = vmm.init_vcpu_cpuid(vcpu, EVERYTHING)
    address = vmm.place(s.CPUID2.pack(256, 0) + bytes(256 * 40))
    vmm.ioctl(vcpu, "KVM_GET_CPUID2", address)
    assert vmm.entries_at(address) == found


def test_the_record_has_kvms_copy_of_the_first_vcpu(vmm: Vmm, module: ModuleVersion, platform: Platform) -> None:
    vm = vmm.initialised_td()
    found = vmm.init_vcpu_cpuid(vcpu_of(vmm, vm), EVERYTHING)
    vmm.init_vcpu_cpuid(vmm.open(vm, "KVM_CREATE_VCPU", 1), [LEAF_1])
    assert vmm.kvm.record()["tds"][0]["kvm-copy"] == [one.as_json() for one in found]
    upstream = Vmm(module, platform)
    upstream.td_vcpu(upstream.initialised_td())
    assert [one["leaf"] for one in upstream.kvm.record()["tds"][0]["kvm-copy"]] == [1]


def test_a_second_call_replaces_the_first(vmm: Vmm) -> None:
    vcpu = vcpu_of(vmm, vmm.initialised_td())
    vmm.init_vcpu_cpuid(vcpu, EVERYTHING)
    vmm.init_vcpu_cpuid(vcpu, [LEAF_1])
    assert [e.leaf for e in vcpu.cpuid] == [Leaf(1)]


def test_too_few_entries_are_e2big_and_nothing_is_kept(vmm: Vmm) -> None:
    vcpu = vcpu_of(vmm, vmm.initialised_td())
    address = vmm.ask([(4, 0, 0, 0)], room=1)
    with vmm.fails(errno.E2BIG):
        vmm.command(vcpu, "INIT_VCPU_CPUID", address)
    needed = vmm.back(address, p.TDX_INIT_VCPU_CPUID_HEAD)[3]
    assert needed > 1
    assert vcpu.cpuid == ()
    address = vmm.ask([(4, 0, 0, 0)], room=needed)
    vmm.command(vcpu, "INIT_VCPU_CPUID", address)
    assert len(vcpu.cpuid) == needed


def test_256_leaves_can_be_asked_for_and_no_more(vmm: Vmm) -> None:
    vcpu = vcpu_of(vmm, vmm.initialised_td())
    assert len(EVERYTHING) == p.MAX_LEAVES == 256
    with vmm.fails(errno.E2BIG):
        vmm.init_vcpu_cpuid(vcpu, [*EVERYTHING, LEAF_1])


@pytest.mark.parametrize(
    "leaf", [(1, 0, 2, 0), (1, 0, 0, 1), (7, 1, 0, 0)], ids=["unknown flag", "padding", "index without flag"]
)
def test_a_leaf_that_is_spelled_wrong_is_einval(vmm: Vmm, leaf: tuple[int, int, int, int]) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.init_vcpu_cpuid(vcpu_of(vmm, vmm.initialised_td()), [leaf])


def test_reserved_fields_and_flags_must_be_0(vmm: Vmm) -> None:
    vcpu = vcpu_of(vmm, vmm.initialised_td())
    with vmm.fails(errno.EINVAL):
        vmm.command(vcpu, "INIT_VCPU_CPUID", vmm.ask([LEAF_1], reserved=b"\0" * 19 + b"\1"))
    with vmm.fails(errno.EINVAL):
        vmm.command(vcpu, "INIT_VCPU_CPUID", vmm.ask([LEAF_1]), flags=1)
    padded = vmm.place(p.TDX_INIT_VCPU_CPUID_HEAD.pack(0, 0, b"", 1, 1) + bytes(40))
    with vmm.fails(errno.EINVAL):
        vmm.command(vcpu, "INIT_VCPU_CPUID", padded)


def test_a_wild_list_is_efault(vmm: Vmm) -> None:
    head = p.TDX_INIT_VCPU_CPUID_HEAD.pack(0xDEAD000, 1, b"", 1, 0)
    with vmm.fails(errno.EFAULT):
        vmm.command(vcpu_of(vmm, vmm.initialised_td()), "INIT_VCPU_CPUID", vmm.place(head + bytes(40)))


def test_not_before_init_vm_nor_after_init_vcpu_nor_after_finalize(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    vcpu = vcpu_of(vmm, vm)
    vmm.init_vcpu_cpuid(vcpu, [LEAF_1])
    vmm.command(vcpu, "INIT_VCPU")
    with vmm.fails(errno.EINVAL):
        vmm.init_vcpu_cpuid(vcpu, [LEAF_1])
    other = vmm.open(vm, "KVM_CREATE_VCPU", 1)
    vmm.command(vm, "FINALIZE_VM")
    with vmm.fails(errno.EINVAL):
        vmm.init_vcpu_cpuid(other, [LEAF_1])


def test_init_vcpu_needs_leaf_1_first(vmm: Vmm) -> None:
    vcpu = vcpu_of(vmm, vmm.initialised_td())
    for leaves in [], [(7, 0, 0, 0)]:
        vmm.init_vcpu_cpuid(vcpu, leaves)
        with vmm.fails(errno.EINVAL):
            vmm.command(vcpu, "INIT_VCPU")
    vmm.init_vcpu_cpuid(vcpu, [LEAF_1])
    vmm.command(vcpu, "INIT_VCPU")


def test_set_cpuid2_is_refused_for_a_td_and_for_no_other_vm(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.set_cpuid2(vcpu_of(vmm, vmm.initialised_td()), [])
    assert "KVM_SET_CPUID2" in vmm.kvm.host.refusals.as_json()[-1]["why"]
    plain = vmm.open(vmm.open(vmm.system, "KVM_CREATE_VM", 0), "KVM_CREATE_VCPU", 0)
    vmm.set_cpuid2(plain, [])


leaves = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 0x90), st.integers(0x80000000, 0x80000090), st.integers(0, 0xFFFFFFFF)),
        st.integers(0, 3),
        st.just(SIGNIFICANT),
        st.just(0),
    ),
    max_size=40,
)


@given(leaves)
def test_kvm_keeps_exactly_what_it_returns_and_what_the_td_has(asked: list[tuple[int, int, int, int]]) -> None:
    vmm = Vmm(load_module("1.5.05"), load_platform("sapphire-rapids"), "proposal")
    vm = td_of(vmm.initialised_td())
    assert vm.td is not None
    vcpu = vcpu_of(vmm, vm)
    found = vmm.init_vcpu_cpuid(vcpu, asked)
    assert tuple(found) == vcpu.cpuid
    wanted = {(function, index) for function, index, _, _ in asked}
    for one in found:
        assert (one.function, one.subleaf) in wanted
        value = vm.td.td.read(one.leaf)
        assert value is not None
        if one.leaf != WIDTH:
            assert one.registers == value
    missing = wanted - {(one.function, one.subleaf) for one in found}
    for function, index in missing:
        if function & 0x7FFFFFFF < 0x80 and index == 0:
            assert vm.td.td.read(Leaf(function, 0)) is None or vm.td.td.read(Leaf(function)) is None


# KVM's list


def test_kvms_list_agrees_with_what_it_supports_for_other_vms(vmm: Vmm) -> None:
    """Feature bits that KVM gives any VM on the newest platform are bits that it knows."""
    supported = Vmm(load_module("1.5.05"), load_platform("granite-rapids")).kvm.host.supported.entries
    known = known_cpuid()
    features = {Leaf(1): ("ecx", "edx"), Leaf(7, 0): ("ebx", "ecx", "edx"), Leaf(7, 1): ("eax", "edx")}
    for leaf, registers in features.items():
        values = next(e.registers for e in supported if e.leaf == leaf)
        for register in registers:
            assert register in REGISTERS
            assert not values.get(register) & ~known[leaf].get(register), (leaf, register)
