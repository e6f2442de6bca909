"""The TDX sub-commands, one test for each rule of KVM's interface (Documentation/virt/kvm/x86/intel-tdx.rst, tdx.c)."""

from __future__ import annotations

import copy
import errno
import json
from typing import TYPE_CHECKING

import pytest

from plugin.cpuid import Leaf, Registers
from plugin.kvm.contract import NewFile, Reply
from plugin.kvm.device.vcpu import Vcpu
from plugin.kvm.device.vm import Vm
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.cpuid import Entry, entry
from plugin.kvm.uapi.ioctls import NUMBERS

if TYPE_CHECKING:
    from plugin.kvm.contract import Device
    from plugin.tdx_module import ModuleVersion, Platform
    from tests.kvm.device.conftest import Vmm

OPERAND_INVALID_CPUID_CONFIG = 0xC000010000000045
SEPT_VE_DISABLE = 1 << 28
WIDTH = Leaf(0x80000008)
GPA = 0x80000000
PAGE = 4096


def width(bits: int) -> Entry:
    return entry(WIDTH, Registers(eax=bits << 16))


# Every sub-command


def test_hw_error_must_be_0_on_entry(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.command(vmm.td_vm(), "CAPABILITIES", hw_error=1)


@pytest.mark.parametrize("number", [6, 7, 0xFFFFFFFF])
def test_an_unknown_id_is_einval(vmm: Vmm, number: int) -> None:
    vm = vmm.initialised_td()
    for device in vm, vmm.td_vcpu(vm):
        with vmm.fails(errno.EINVAL):
            vmm.call(device, "KVM_MEMORY_ENCRYPT_OP", s.TDX_CMD, number, 0, 0, 0)


def test_a_vm_command_does_not_exist_on_a_vcpu_nor_the_other_way_round(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    vcpu = vmm.td_vcpu(vm)
    for name in "CAPABILITIES", "INIT_VM", "FINALIZE_VM":
        with vmm.fails(errno.EINVAL):
            vmm.command(vcpu, name)
    for name in "INIT_VCPU", "INIT_MEM_REGION", "GET_CPUID":
        with vmm.fails(errno.EINVAL):
            vmm.command(vm, name)


def test_only_a_td_has_sub_commands(vmm: Vmm) -> None:
    vm = vmm.open(vmm.system, "KVM_CREATE_VM", 0)
    with vmm.fails(errno.ENOTTY):
        vmm.command(vm, "CAPABILITIES")


def test_a_wild_pointer_to_the_command_is_efault(vmm: Vmm) -> None:
    with vmm.fails(errno.EFAULT):
        vmm.ioctl(vmm.td_vm(), "KVM_MEMORY_ENCRYPT_OP", 0xDEAD000)


# KVM_TDX_CAPABILITIES


def test_capabilities_takes_no_flags(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.command(vmm.td_vm(), "CAPABILITIES", vmm.place(bytes(s.TDX_CAPABILITIES.size)), flags=1)


def test_capabilities_with_too_little_room_is_e2big_and_nothing_is_written(vmm: Vmm) -> None:
    before = s.TDX_CAPABILITIES.pack(1, 2, 3, 4, 5, 6, b"\7" * 2000, 6, 8)
    address = vmm.place(before)
    with vmm.fails(errno.E2BIG):
        vmm.command(vmm.td_vm(), "CAPABILITIES", address)
    assert vmm.memory.read(address, len(before)) == before


def test_capabilities_needs_room_for_exactly_what_the_module_configures(vmm: Vmm, module: ModuleVersion) -> None:
    needed = len(module.configurable)
    assert len(vmm.capabilities(vmm.td_vm(), needed)[2]) == needed
    with vmm.fails(errno.E2BIG):
        vmm.capabilities(vmm.td_vm(), needed - 1)


def test_capabilities_wild_data_is_efault(vmm: Vmm) -> None:
    with vmm.fails(errno.EFAULT):
        vmm.command(vmm.td_vm(), "CAPABILITIES", 0x1000)


def test_supported_attributes_are_those_kvm_knows_and_the_module_has(vmm: Vmm) -> None:
    assert vmm.capabilities(vmm.td_vm())[0] == SEPT_VE_DISABLE


def test_supported_xfam_is_what_kvm_module_and_platform_have(
    vmm: Vmm, module: ModuleVersion, platform: Platform
) -> None:
    xfam = vmm.capabilities(vmm.td_vm())[1]
    assert xfam == 0x61AE7
    assert xfam & ~module.xfam_supported(platform) == 0


def test_configurable_entries_come_in_the_modules_order_without_flags(vmm: Vmm, module: ModuleVersion) -> None:
    entries = vmm.capabilities(vmm.td_vm())[2]
    assert [(e.function, e.subleaf) for e in entries] == [(n, sub or 0) for n, sub in module.configurable]
    assert {e.flags for e in entries} == {0}


def test_the_address_width_is_reported_configurable_although_the_module_does_not_have_it(
    vmm: Vmm, module: ModuleVersion
) -> None:
    shown = {e.function: e.registers for e in vmm.capabilities(vmm.td_vm())[2]}[WIDTH.number]
    assert shown.eax >> 16 & 0xFF == 0xFF
    assert not module.configurable[WIDTH].eax >> 16 & 0xFF


def test_hle_rtm_and_waitpkg_are_hidden_although_the_module_could(vmm: Vmm, module: ModuleVersion) -> None:
    leaf = Leaf(7, 0)
    hidden = Registers(ebx=1 << 4 | 1 << 11, ecx=1 << 5)
    shown = next(e.registers for e in vmm.capabilities(vmm.td_vm())[2] if (e.function, e.subleaf) == leaf)
    assert module.configurable[leaf] & hidden == hidden
    assert shown == module.configurable[leaf].without(hidden)


def test_capabilities_work_before_and_after_init_vm(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    before = vmm.capabilities(vm)
    vmm.init_vm(vm)
    assert vmm.capabilities(vm) == before


def test_a_module_that_forces_an_attribute_kvm_does_not_know_is_eio(
    vmm: Vmm, module: ModuleVersion, platform: Platform
) -> None:
    forcing = copy.copy(module)
    forcing.attributes_fixed1 = 1
    vmm = type(vmm)(forcing, platform)
    with vmm.fails(errno.EIO):
        vmm.capabilities(vmm.td_vm())


# KVM_TDX_INIT_VM


def test_init_vm_makes_a_td(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    assert vmm.kvm.host.tds == []
    vmm.init_vm(vm, vmm.init_data(attributes=SEPT_VE_DISABLE, xfam=7))
    (td,) = vmm.kvm.host.tds
    assert (td.td.params.attributes, td.td.params.xfam, td.gpaw) == (SEPT_VE_DISABLE, 7, 48)


def test_init_vm_a_second_time_is_einval(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vm)
    assert len(vmm.kvm.host.tds) == 1


def test_init_vm_takes_no_flags(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.command(vmm.td_vm(), "INIT_VM", vmm.place(vmm.init_data()), flags=1)


def test_init_vm_takes_256_entries_and_no_more(vmm: Vmm) -> None:
    with vmm.fails(errno.E2BIG):
        vmm.init_vm(vmm.td_vm(), vmm.init_data(count=257))
    with vmm.fails(errno.EINVAL):  # read, and found not to be configurable
        vmm.init_vm(vmm.td_vm(), vmm.init_data([width(48)] * 256))


def test_init_vm_entries_beyond_mapped_memory_are_efault(vmm: Vmm) -> None:
    end = 0x7F0000000000 + (1 << 18)
    address = end - s.TDX_INIT_VM.size
    vmm.memory.write(address, s.TDX_INIT_VM.pack(0, 3, b"", b"", b"", b"", 1, 0))
    with vmm.fails(errno.EFAULT):
        vmm.command(vmm.td_vm(), "INIT_VM", address)


@pytest.mark.parametrize("byte", [0, 95])
def test_init_vm_reserved_bytes_must_be_0(vmm: Vmm, byte: int) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data(reserved=bytes(byte) + b"\1"))


def test_init_vm_padding_must_be_0(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data(padding=1))


def test_e2big_comes_before_the_reserved_fields_are_looked_at(vmm: Vmm) -> None:
    with vmm.fails(errno.E2BIG):
        vmm.init_vm(vmm.td_vm(), vmm.init_data(count=257, reserved=b"\1"))


@pytest.mark.parametrize("bit", [0, 27, 29, 30, 63])
def test_an_attribute_kvm_does_not_support_is_einval(vmm: Vmm, bit: int) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data(attributes=1 << bit))


@pytest.mark.parametrize("bit", [3, 4, 8, 10, 14, 15, 16, 63])
def test_an_xfam_bit_kvm_does_not_support_is_einval(vmm: Vmm, bit: int) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data(xfam=3 | 1 << bit))


def test_fixed_1_bits_of_attributes_and_xfam_are_added(vmm: Vmm, module: ModuleVersion) -> None:
    vmm.init_vm(vmm.td_vm(), vmm.init_data(attributes=0, xfam=0))
    params = vmm.kvm.host.tds[0].td.params
    assert (params.attributes, params.xfam) == (module.attributes_fixed1, module.xfam_fixed1)
    assert params.xfam == 3


def test_the_address_width_leaf_must_be_there(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data([]))


@pytest.mark.parametrize("bits", [0, 46, 47, 49, 51, 53, 57])
def test_the_address_width_must_be_48_or_52(vmm: Vmm, bits: int) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data([width(bits)]))


@pytest.mark.parametrize("bits", [48, 52])
def test_the_address_width_is_kept(vmm: Vmm, bits: int) -> None:
    vm = vmm.td_vm()
    vmm.init_vm(vm, vmm.init_data([width(bits)]))
    read = {e.leaf: e.registers for e in vmm.get_cpuid(vmm.td_vcpu(vm))}[WIDTH]
    assert read.eax >> 16 & 0xFF == bits


def test_52_bits_need_five_ept_levels(vmm: Vmm, module: ModuleVersion, platform: Platform) -> None:
    features = platform.native[Leaf(7, 0)]
    native = {**platform.native, Leaf(7, 0): features.with_("ecx", features.ecx & ~(1 << 16))}
    vmm = type(vmm)(module, type(platform)("no-la57", "", native, tsx_ctrl=True))
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data([width(52)]))
    vmm.init_vm(vmm.td_vm(), vmm.init_data([width(48)]))


def test_the_address_width_is_not_handed_to_the_module_and_all_else_is(vmm: Vmm) -> None:
    cache = entry(Leaf(4, 0), Registers(eax=0xFF << 16))
    vmm.init_vm(vmm.td_vm(), vmm.init_data([width(48), cache]))
    config = vmm.kvm.host.tds[0].td.params.cpuid_config
    assert (config[WIDTH], config[cache.leaf]) == (Registers(), cache.registers)


@pytest.mark.parametrize("leaf", [Leaf(0), Leaf(0x1A), Leaf(7, 9), Leaf(0x40000001), Leaf(0x80000001)])
def test_an_entry_without_a_slot_is_einval(vmm: Vmm, leaf: Leaf) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data([width(48), entry(leaf, Registers())]))


def test_the_same_leaf_twice_is_einval(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data([width(48), width(48)]))


def test_an_entry_that_does_not_say_its_index_counts_matches_every_sub_leaf_and_so_too_many_slots(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.init_vm(vmm.td_vm(), vmm.init_data([width(48), Entry(7, 0, 0, Registers())]))


@pytest.mark.parametrize("refused", [Registers(ebx=1 << 4 | 1 << 11), Registers(ecx=1 << 5)])
def test_hle_rtm_and_waitpkg_are_einval_without_a_seamcall(vmm: Vmm, refused: Registers) -> None:
    address = vmm.place(s.TDX_CMD.pack(1, 0, vmm.place(vmm.init_data([width(48), entry(Leaf(7, 0), refused)])), 0))
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vmm.td_vm(), "KVM_MEMORY_ENCRYPT_OP", address)
    assert vmm.back(address, s.TDX_CMD)[3] == 0


def test_what_the_module_refuses_is_einval_with_the_seamcall_status_in_hw_error(vmm: Vmm) -> None:
    bad = entry(Leaf(7, 0), Registers(ebx=1 << 0))  # FSGSBASE is fixed
    address = vmm.place(s.TDX_CMD.pack(1, 0, vmm.place(vmm.init_data([width(48), bad])), 0))
    vm = vmm.td_vm()
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vm, "KVM_MEMORY_ENCRYPT_OP", address)
    assert vmm.back(address, s.TDX_CMD)[3] == OPERAND_INVALID_CPUID_CONFIG
    vmm.init_vm(vm)  # and the TD can be initialised still


def test_a_configured_bit_reaches_the_td(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    shown = next(e for e in vmm.capabilities(vm)[2] if (e.function, e.subleaf) == (7, 1))
    bit = shown.registers.eax & -shown.registers.eax
    vmm.init_vm(vm, vmm.init_data([width(48), entry(Leaf(7, 1), Registers(eax=bit))], xfam=0xE7))
    vmm.init_vm(vmm.td_vm(), vmm.init_data([width(48)], xfam=0xE7))
    on, off = (td.td.cpuid[Leaf(7, 1)].eax & bit for td in vmm.kvm.host.tds)
    assert (on, off) == (bit, 0)


def test_init_vm_once_a_vcpu_exists_is_impossible_because_a_td_has_none_before(vmm: Vmm) -> None:
    with vmm.fails(errno.EIO):
        vmm.open(vmm.td_vm(), "KVM_CREATE_VCPU", 0)


def test_init_vm_while_a_vcpu_is_being_created_is_ebusy(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    assert isinstance(vm, Vm)
    vm.vcpus[0] = Vcpu(vm, 0)  # by another thread, and its creation will fail
    with vmm.fails(errno.EBUSY):
        vmm.init_vm(vm)


def test_init_vm_changes_nothing_until_the_reply_is_taken(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    address = vmm.place(s.TDX_CMD.pack(1, 0, vmm.place(vmm.init_data()), 0))
    lost = vmm.answer(vm, NUMBERS["KVM_MEMORY_ENCRYPT_OP"], address)
    assert isinstance(lost, Reply)
    assert vmm.kvm.host.tds == []
    vmm.ioctl(vm, "KVM_MEMORY_ENCRYPT_OP", address)  # the repeated call
    assert len(vmm.kvm.host.tds) == 1


def test_the_tsc_frequency_is_the_vms(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    vmm.ioctl(vm, "KVM_SET_TSC_KHZ", 1_000_000)
    vmm.init_vm(vm)
    assert vmm.kvm.host.tds[0].td.cpuid[Leaf(0x15)] == Registers(1, 40, 25_000_000, 0)


def test_a_tsc_frequency_the_module_cannot_make_is_einval_with_hw_error(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    vmm.ioctl(vm, "KVM_SET_TSC_KHZ", 20_000_000)
    address = vmm.place(s.TDX_CMD.pack(1, 0, vmm.place(vmm.init_data()), 0))
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vm, "KVM_MEMORY_ENCRYPT_OP", address)
    assert vmm.back(address, s.TDX_CMD)[3] >> 32 == 0xC0000100


# vCPUs and KVM_TDX_INIT_VCPU


def test_a_tds_vcpu_needs_the_split_interrupt_chip(vmm: Vmm) -> None:
    vm = vmm.open(vmm.system, "KVM_CREATE_VM", 5)
    vmm.init_vm(vm)
    with vmm.fails(errno.EINVAL):
        vmm.open(vm, "KVM_CREATE_VCPU", 0)


def test_64_vcpus(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    for number in range(64):
        vmm.open(vm, "KVM_CREATE_VCPU", number)
    assert vmm.kvm.host.tds[0].vcpus == 64
    with vmm.fails(errno.EEXIST):
        vmm.open(vm, "KVM_CREATE_VCPU", 63)


def test_init_vcpu_a_second_time_is_einval(vmm: Vmm) -> None:
    vcpu = vmm.td_vcpu(vmm.initialised_td())
    vmm.command(vcpu, "INIT_VCPU")
    with vmm.fails(errno.EINVAL):
        vmm.command(vcpu, "INIT_VCPU")


def test_init_vcpu_takes_no_flags(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.command(vmm.td_vcpu(vmm.initialised_td()), "INIT_VCPU", flags=1)


def test_init_vcpu_needs_x2apic_in_kvms_view_of_the_vcpu(vmm: Vmm) -> None:
    vcpu = vmm.open(vmm.initialised_td(), "KVM_CREATE_VCPU", 0)
    with vmm.fails(errno.EINVAL):
        vmm.command(vcpu, "INIT_VCPU")
    vmm.set_cpuid2(vcpu, [entry(Leaf(1), Registers(ecx=1 << 21))])
    vmm.command(vcpu, "INIT_VCPU")


@pytest.mark.parametrize("name", ["INIT_VCPU", "INIT_MEM_REGION", "GET_CPUID"])
def test_no_vcpu_command_works_after_finalize_vm(vmm: Vmm, name: str) -> None:
    vm = vmm.initialised_td()
    vcpu = vmm.td_vcpu(vm)
    vmm.command(vm, "FINALIZE_VM")
    with vmm.fails(errno.EINVAL):
        vmm.command(vcpu, name, vmm.place(bytes(s.CPUID2.size + 256 * 40)))


def test_no_vcpu_can_be_created_after_finalize_vm(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    vmm.command(vm, "FINALIZE_VM")
    with vmm.fails(errno.EIO):
        vmm.open(vm, "KVM_CREATE_VCPU", 0)


# KVM_TDX_INIT_MEM_REGION


@pytest.fixture
def vcpu(vmm: Vmm) -> Device:
    """An initialised vCPU of a TD with 16 pages of private memory at GPA."""
    vm = vmm.initialised_td()
    vmm.private_memory(vm, GPA, 16 * PAGE)
    vcpu = vmm.td_vcpu(vm)
    vmm.command(vcpu, "INIT_VCPU")
    return vcpu


def add(vmm: Vmm, vcpu: Device, gpa: int, pages: int, source: int | None = None, flags: int = 0) -> int:
    source = vmm.place(bytes(16 * PAGE - 1)) if source is None else source
    address = vmm.place(s.TDX_INIT_MEM_REGION.pack(source, gpa, pages))
    vmm.command(vcpu, "INIT_MEM_REGION", address, flags)
    return address


def test_all_three_fields_are_advanced_and_written_back(vmm: Vmm, vcpu: Device) -> None:
    source = vmm.place(bytes(4 * PAGE - 1))
    address = add(vmm, vcpu, GPA, 4, source)
    assert vmm.back(address, s.TDX_INIT_MEM_REGION) == (source + 4 * PAGE, GPA + 4 * PAGE, 0)


def test_a_page_can_be_measured_and_no_other_flag_exists(vmm: Vmm, vcpu: Device) -> None:
    add(vmm, vcpu, GPA, 1, flags=1)
    with vmm.fails(errno.EINVAL):
        add(vmm, vcpu, GPA, 1, flags=2)


@pytest.mark.parametrize(
    ("gpa", "pages"),
    [
        (GPA + 1, 1),
        (GPA + 0x800, 1),
        (GPA, 0),
        (GPA, 1 << 52),  # nr_pages << 12 wraps to 0
        ((1 << 64) - PAGE, 1),
        (GPA, (1 << 64) - 1),
        (1 << 47, 1),  # the shared bit of a 48-bit width
        ((1 << 47) - PAGE, 2),
        (GPA - PAGE, 1),
        (GPA + 16 * PAGE, 1),
    ],
)
def test_a_bad_range_is_einval_and_nothing_is_advanced(vmm: Vmm, vcpu: Device, gpa: int, pages: int) -> None:
    source = vmm.place(bytes(PAGE))
    address = vmm.place(s.TDX_INIT_MEM_REGION.pack(source, gpa, pages))
    with vmm.fails(errno.EINVAL):
        vmm.command(vcpu, "INIT_MEM_REGION", address)
    assert vmm.back(address, s.TDX_INIT_MEM_REGION) == (source, gpa, pages)


def test_the_source_must_be_page_aligned(vmm: Vmm, vcpu: Device) -> None:
    with vmm.fails(errno.EINVAL):
        add(vmm, vcpu, GPA, 1, vmm.place(bytes(PAGE)) + 8)


def test_a_source_that_is_not_mapped_is_efault(vmm: Vmm, vcpu: Device) -> None:
    with vmm.fails(errno.EFAULT):
        add(vmm, vcpu, GPA, 1, 0x1000)


def test_shared_addresses_are_refused_even_if_a_guest_memfd_backs_them(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    vmm.private_memory(vm, 1 << 47, PAGE)
    vcpu = vmm.td_vcpu(vm)
    vmm.command(vcpu, "INIT_VCPU")
    with vmm.fails(errno.EINVAL):
        add(vmm, vcpu, 1 << 47, 1)


def test_where_there_is_no_memory_the_source_is_not_looked_at(vmm: Vmm, vcpu: Device) -> None:
    with vmm.fails(errno.EINVAL):
        add(vmm, vcpu, GPA + 16 * PAGE, 1, 0x1000)


def test_pages_up_to_the_end_of_private_memory_are_added_before_it_fails(vmm: Vmm, vcpu: Device) -> None:
    source = vmm.place(bytes(16 * PAGE - 1))
    address = vmm.place(s.TDX_INIT_MEM_REGION.pack(source, GPA + 12 * PAGE, 8))
    with vmm.fails(errno.EINVAL):
        vmm.command(vcpu, "INIT_MEM_REGION", address)
    assert vmm.back(address, s.TDX_INIT_MEM_REGION) == (source + 4 * PAGE, GPA + 16 * PAGE, 4)


def test_the_vcpu_must_be_initialised_first(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    vmm.private_memory(vm, GPA, PAGE)
    with vmm.fails(errno.EINVAL):
        add(vmm, vmm.td_vcpu(vm), GPA, 1)


def test_the_advanced_fields_are_no_call_of_their_own(vmm: Vmm, vcpu: Device) -> None:
    region = vmm.place(s.TDX_INIT_MEM_REGION.pack(vmm.place(bytes(PAGE)), GPA, 1))
    command = vmm.place(s.TDX_CMD.pack(3, 0, region, 0))
    assert vmm.ioctl(vcpu, "KVM_MEMORY_ENCRYPT_OP", command) == 0
    with vmm.fails(errno.EINVAL):  # no page is left
        vmm.ioctl(vcpu, "KVM_MEMORY_ENCRYPT_OP", command)


# KVM_TDX_FINALIZE_VM


def test_finalize_vm_needs_an_initialised_td(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.command(vmm.td_vm(), "FINALIZE_VM")


def test_finalize_vm_works_once(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    assert not vmm.kvm.host.tds[0].finalised
    vmm.command(vm, "FINALIZE_VM")
    assert vmm.kvm.host.tds[0].finalised
    with vmm.fails(errno.EINVAL):
        vmm.command(vm, "FINALIZE_VM")


# KVM_TDX_GET_CPUID


def test_get_cpuid_with_too_little_room_is_e2big_and_says_how_many(vmm: Vmm) -> None:
    vcpu = vmm.td_vcpu(vmm.initialised_td())
    needed = len(vmm.get_cpuid(vcpu))
    address = vmm.place(s.CPUID2.pack(needed - 1, 0))
    with vmm.fails(errno.E2BIG):
        vmm.command(vcpu, "GET_CPUID", address)
    assert vmm.back(address, s.CPUID2)[0] == needed
    assert len(vmm.get_cpuid(vcpu, needed)) == needed


def test_get_cpuid_ignores_flags_as_the_kernel_does(vmm: Vmm) -> None:
    address = vmm.place(s.CPUID2.pack(256, 0) + bytes(256 * 40))
    vmm.command(vmm.td_vcpu(vmm.initialised_td()), "GET_CPUID", address, flags=1)
    assert vmm.back(address, s.CPUID2)[0] > 0


def test_get_cpuid_reads_leaf_0_up_to_its_maximum_then_the_extended_range(vmm: Vmm) -> None:
    leaves = [e.function for e in vmm.get_cpuid(vmm.td_vcpu(vmm.initialised_td()))]
    assert leaves == sorted(leaves)
    assert leaves[0] == 0
    assert leaves[-1] == 0x80000008
    assert not [n for n in leaves if 0x23 < n < 0x80000000]


def test_get_cpuid_is_what_the_module_says(vmm: Vmm) -> None:
    entries = vmm.get_cpuid(vmm.td_vcpu(vmm.initialised_td()))
    td = vmm.kvm.host.tds[0].td
    for e in entries:
        expected = td.read(e.leaf)
        assert expected is not None
        if e.leaf == WIDTH:
            expected = expected.with_("eax", expected.eax & ~(0xFF << 16) | 48 << 16)
        assert e.registers == expected, str(e.leaf)
    assert len(entries) > 40


def test_sub_leaves_are_read_from_0_until_one_fails(vmm: Vmm) -> None:
    entries = vmm.get_cpuid(vmm.td_vcpu(vmm.initialised_td()))
    td = vmm.kvm.host.tds[0].td
    for number in {e.function for e in entries if e.flags}:
        found = [e.subleaf for e in entries if e.function == number]
        assert found == list(range(len(found)))
        assert len(found) == 128 or td.read(Leaf(number, len(found))) is None


def test_a_leaf_that_always_raises_ve_is_not_read(vmm: Vmm) -> None:
    read = {e.function for e in vmm.get_cpuid(vmm.td_vcpu(vmm.initialised_td()))}
    assert 0x2 not in read
    assert 0x40000000 not in read


def test_get_cpuid_is_the_same_for_every_vcpu(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    first, second = (vmm.get_cpuid(vmm.td_vcpu(vm, number)) for number in (0, 1))
    assert first == second


# What is left for a report


def test_the_record_has_request_result_and_what_kvm_masked(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    vmm.init_vm(vm, vmm.init_data([width(52)], SEPT_VE_DISABLE, 0xE7))
    vmm.td_vcpu(vm)
    vmm.command(vm, "FINALIZE_VM")
    record = json.loads(json.dumps(vmm.kvm.record()))
    (td,) = record["tds"]
    assert record["module"] == "1.5.05"
    assert td["requested"] == {
        "attributes": SEPT_VE_DISABLE,
        "xfam": 0xE7,
        "cpuid": [{"leaf": WIDTH.number, "eax": 52 << 16, "ebx": 0, "ecx": 0, "edx": 0}],
    }
    assert td["kvm-filtered"] == [{"leaf": 7, "subleaf": 0, "eax": 0, "ebx": 1 << 4 | 1 << 11, "ecx": 1 << 5, "edx": 0}]
    assert (td["vcpus"], td["finalised"], td["gpaw"]) == (1, True, 52)
    assert {key: td["cpuid"][0][key] for key in ("leaf", "eax")} == {"leaf": 0, "eax": 0x23}


def test_each_vm_is_a_td_of_its_own(vmm: Vmm) -> None:
    first, second = vmm.td_vm(), vmm.td_vm()
    vmm.init_vm(first, vmm.init_data(xfam=3))
    vmm.init_vm(second, vmm.init_data(xfam=7))
    assert [td.xfam for td in vmm.kvm.host.tds] == [3, 7]


def test_a_new_descriptor_is_not_a_vcpu_before_the_reply_is_taken(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    assert isinstance(vmm.answer(vm, NUMBERS["KVM_CREATE_VCPU"], 0), NewFile)
    assert vmm.kvm.host.tds[0].vcpus == 0
    vmm.open(vm, "KVM_CREATE_VCPU", 0)
    assert vmm.kvm.host.tds[0].vcpus == 1
