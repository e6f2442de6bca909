"""What a VMM asks of /dev/kvm, a VM and a vCPU besides TDX, rule by rule."""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING

import pytest

from plugin.cpuid import Leaf, Registers
from plugin.kvm.contract import Wait
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.capabilities import NUMBERS as CAPABILITIES
from plugin.kvm.uapi.cpuid import entry, unpack
from plugin.kvm.uapi.ioctls import NUMBERS, REQUESTS

if TYPE_CHECKING:
    from plugin.kvm.contract import Device
    from tests.kvm.device.conftest import Vmm

PAGE = 4096


# Any descriptor


def test_an_unknown_request_is_enotty_with_one_warning_for_each_number(vmm: Vmm) -> None:
    for _ in range(3):
        with vmm.fails(errno.ENOTTY):
            vmm.answer(vmm.system, 0xAEFF, 0)
    with vmm.fails(errno.ENOTTY):
        vmm.answer(vmm.system, 0xAEFE, 0)
    assert len(vmm.warnings) == 2
    assert "0x0000aeff" in vmm.warnings[0]


def test_a_request_of_another_kind_of_descriptor_is_enotty(vmm: Vmm) -> None:
    with vmm.fails(errno.ENOTTY):
        vmm.ioctl(vmm.system, "KVM_RUN")
    with vmm.fails(errno.ENOTTY):
        vmm.ioctl(vmm.td_vm(), "KVM_GET_API_VERSION")


def test_every_row_of_the_table_has_its_handler(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    devices = {device.kind: device for device in (vmm.system, vm, vmm.td_vcpu(vm))}
    missing = [row.name for row in REQUESTS for kind in row.kinds if not hasattr(devices[kind], row.handler)]
    assert missing == []


# /dev/kvm


def test_api_version_is_12(vmm: Vmm) -> None:
    assert vmm.ioctl(vmm.system, "KVM_GET_API_VERSION") == 12
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vmm.system, "KVM_GET_API_VERSION", 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VM_TYPES", 0x21),
        ("EXIT_HYPERCALL", 1 << 12),
        ("X86_APIC_BUS_CYCLES_NS", 1),
        ("GUEST_MEMFD", 1),
        ("MEMORY_ATTRIBUTES", 8),
        ("USER_MEMORY2", 1),
        ("IMMEDIATE_EXIT", 1),
        ("NESTED_STATE", 0),
        ("DIRTY_LOG_RING", 0),
        ("XSAVE2", 11008),
        ("MCE", 32),
    ],
)
def test_capabilities_a_td_depends_on(vmm: Vmm, name: str, value: int) -> None:
    assert vmm.ioctl(vmm.system, "KVM_CHECK_EXTENSION", CAPABILITIES[name]) == value


@pytest.mark.parametrize("number", [245, 1000, 1 << 31, (1 << 64) - 1])
def test_an_unknown_capability_is_0(vmm: Vmm, number: int) -> None:
    assert vmm.ioctl(vmm.system, "KVM_CHECK_EXTENSION", number) == 0


def test_a_td_differs_in_what_its_memory_and_interrupts_can_do(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    for name, on_td in ("READONLY_MEM", 0), ("X86_SMM", 0), ("MULTI_ADDRESS_SPACE", 1), ("MAX_VCPUS", 256):
        assert vmm.ioctl(vm, "KVM_CHECK_EXTENSION", CAPABILITIES[name]) == on_td
        assert vmm.ioctl(vmm.system, "KVM_CHECK_EXTENSION", CAPABILITIES[name]) != on_td


@pytest.mark.parametrize("vm_type", [1, 2, 3, 4, 6, 1 << 40])
def test_only_vm_types_0_and_5_exist(vmm: Vmm, vm_type: int) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.open(vmm.system, "KVM_CREATE_VM", vm_type)


@pytest.mark.parametrize("name", ["KVM_GET_MSR_INDEX_LIST", "KVM_GET_MSR_FEATURE_INDEX_LIST"])
def test_msr_lists_say_how_many_there_are_when_they_do_not_fit(vmm: Vmm, name: str) -> None:
    address = vmm.place(s.MSR_LIST.pack(0) + bytes(4096))
    with vmm.fails(errno.E2BIG):
        vmm.ioctl(vmm.system, name, address)
    (count,) = vmm.back(address, s.MSR_LIST)
    assert count > 0
    assert vmm.memory.read(address + 4, 4096) == bytes(4096)
    vmm.ioctl(vmm.system, name, address)
    raw = vmm.memory.read(address + 4, 4 * count)
    indices = [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]
    assert 0x10A in indices  # IA32_ARCH_CAPABILITIES
    assert len(set(indices)) == count


def msrs(vmm: Vmm, *indices: int) -> int:
    entries = b"".join(s.MSR_ENTRY.pack(index, 0, 0) for index in indices)
    return vmm.place(s.MSRS.pack(len(indices), 0) + entries)


def test_feature_msrs_are_read_until_the_first_that_is_none(vmm: Vmm) -> None:
    address = msrs(vmm, 0x10A, 0x8B, 0x1234, 0x345)
    assert vmm.ioctl(vmm.system, "KVM_GET_MSRS", address) == 2
    assert vmm.back(address + 8, s.MSR_ENTRY)[2] & 0b11 == 0b11  # RDCL_NO, IBRS_ALL


def test_256_msrs_are_too_many(vmm: Vmm) -> None:
    with vmm.fails(errno.E2BIG):
        vmm.ioctl(vmm.system, "KVM_GET_MSRS", msrs(vmm, *[0x10A] * 256))


def test_xcomp_guest_supp_is_the_xcr0_a_guest_can_have(vmm: Vmm) -> None:
    value = vmm.place(bytes(8))
    vmm.call(vmm.system, "KVM_GET_DEVICE_ATTR", s.DEVICE_ATTR, 0, 0, 0, value)
    assert int.from_bytes(vmm.memory.read(value, 8), "little") == 0x602E7
    with vmm.fails(errno.ENXIO):
        vmm.call(vmm.system, "KVM_HAS_DEVICE_ATTR", s.DEVICE_ATTR, 0, 0, 1, 0)
    with vmm.fails(errno.EINVAL):
        vmm.call(vmm.system, "KVM_HAS_DEVICE_ATTR", s.DEVICE_ATTR, 1, 0, 0, 0)


def test_a_vcpu_shares_three_pages(vmm: Vmm) -> None:
    assert vmm.ioctl(vmm.system, "KVM_GET_VCPU_MMAP_SIZE") == 3 * PAGE
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vmm.system, "KVM_GET_VCPU_MMAP_SIZE", 1)


# VM


def region(vmm: Vmm, vm: Device, slot: int, gpa: int, size: int, flags: int = 0, address: int = 1 << 30) -> int:
    values = slot, flags, gpa, size, address, 0, 0, 0, b""
    return vmm.call(vm, "KVM_SET_USER_MEMORY_REGION2", s.USERSPACE_MEMORY_REGION2, *values)


def test_slots_are_created_moved_and_deleted(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    region(vmm, vm, 0, 0, 4 * PAGE)
    region(vmm, vm, 1, 8 * PAGE, 4 * PAGE)
    with vmm.fails(errno.EEXIST):
        region(vmm, vm, 2, 3 * PAGE, PAGE)
    region(vmm, vm, 0, 16 * PAGE, 4 * PAGE)
    region(vmm, vm, 2, 3 * PAGE, PAGE)
    region(vmm, vm, 2, 0, 0)
    with vmm.fails(errno.EINVAL):
        region(vmm, vm, 2, 0, 0)


@pytest.mark.parametrize(
    ("slot", "gpa", "size", "flags"),
    [
        (0, 1, PAGE, 0),
        (0, 0, PAGE - 1, 0),
        (0x7FFD, 0, PAGE, 0),
        (1 << 16, 0, PAGE, 0),
        (0, (1 << 64) - PAGE, 2 * PAGE, 0),
        (0, 0, PAGE, 2),  # read-only memory, which a TD cannot have
        (0, 0, PAGE, 1 << 3),
        (0, 0, PAGE, 4 | 1),  # dirty logging of a guest_memfd
    ],
)
def test_a_bad_slot_is_einval(vmm: Vmm, slot: int, gpa: int, size: int, flags: int) -> None:
    with vmm.fails(errno.EINVAL):
        region(vmm, vmm.td_vm(), slot, gpa, size, flags)


def test_a_slot_keeps_its_size_and_user_address_and_may_log_dirty_pages(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    region(vmm, vm, 0, 0, 2 * PAGE)
    with vmm.fails(errno.EINVAL):
        region(vmm, vm, 0, 0, PAGE)
    with vmm.fails(errno.EINVAL):
        region(vmm, vm, 0, 0, 2 * PAGE, address=2 << 30)
    region(vmm, vm, 0, 0, 2 * PAGE, flags=1)
    bitmap = vmm.place(b"\xff" * 8)
    vmm.call(vm, "KVM_GET_DIRTY_LOG", s.DIRTY_LOG, 0, 0, bitmap)
    assert vmm.memory.read(bitmap, 8) == bytes(8)


def test_a_slot_with_a_guest_memfd_can_only_be_deleted(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    region(vmm, vm, 0, 0, PAGE, 4)
    with vmm.fails(errno.EINVAL):
        region(vmm, vm, 0, PAGE, PAGE, 4)
    region(vmm, vm, 0, 0, 0)


@pytest.mark.parametrize("values", [(0, 0, 8, 0), (1, PAGE, 8, 0), (0, PAGE, 1, 0), (0, PAGE, 8, 1)])
def test_bad_memory_attributes_are_einval(vmm: Vmm, values: tuple[int, ...]) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.call(vmm.td_vm(), "KVM_SET_MEMORY_ATTRIBUTES", s.MEMORY_ATTRIBUTES, *values)


@pytest.mark.parametrize(("size", "flags"), [(0, 0), (PAGE + 1, 0), (PAGE, 1), (1 << 63, 0)])
def test_a_bad_guest_memfd_is_einval(vmm: Vmm, size: int, flags: int) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.call(vmm.td_vm(), "KVM_CREATE_GUEST_MEMFD", s.CREATE_GUEST_MEMFD, size, flags, b"")


def test_a_td_cannot_have_the_whole_interrupt_chip(vmm: Vmm) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vmm.open(vmm.system, "KVM_CREATE_VM", 5), "KVM_CREATE_IRQCHIP")


def test_there_is_one_interrupt_chip(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    with vmm.fails(errno.EEXIST):
        vmm.enable(vm, "SPLIT_IRQCHIP", 24)


@pytest.mark.parametrize(("cycles", "number"), [(40, 0), (0, errno.EINVAL)])
def test_apic_bus_cycles(vmm: Vmm, cycles: int, number: int) -> None:
    vm = vmm.td_vm()
    if number:
        with vmm.fails(number):
            vmm.enable(vm, "X86_APIC_BUS_CYCLES_NS", cycles)
    else:
        assert vmm.enable(vm, "X86_APIC_BUS_CYCLES_NS", cycles) == 0


def test_apic_bus_cycles_need_an_interrupt_chip_and_no_vcpu(vmm: Vmm) -> None:
    with vmm.fails(errno.ENXIO):
        vmm.enable(vmm.open(vmm.system, "KVM_CREATE_VM", 5), "X86_APIC_BUS_CYCLES_NS", 40)
    vm = vmm.initialised_td()
    vmm.td_vcpu(vm)
    with vmm.fails(errno.EINVAL):
        vmm.enable(vm, "X86_APIC_BUS_CYCLES_NS", 40)


def test_hypercall_exits_other_than_map_gpa_range_are_einval(vmm: Vmm) -> None:
    vmm.enable(vmm.td_vm(), "EXIT_HYPERCALL", 1 << 12)
    with vmm.fails(errno.EINVAL):
        vmm.enable(vmm.td_vm(), "EXIT_HYPERCALL", 1 << 11)


def test_an_ioeventfd_is_assigned_once_and_deassigned_once(vmm: Vmm) -> None:
    vm = vmm.td_vm()
    vmm.call(vm, "KVM_IOEVENTFD", s.IOEVENTFD, 0, 0xFEE0, 4, 7, 0, b"")
    with vmm.fails(errno.EEXIST):
        vmm.call(vm, "KVM_IOEVENTFD", s.IOEVENTFD, 0, 0xFEE0, 4, 7, 0, b"")
    vmm.call(vm, "KVM_IOEVENTFD", s.IOEVENTFD, 0, 0xFEE0, 4, 7, 4, b"")
    with vmm.fails(errno.ENOENT):
        vmm.call(vm, "KVM_IOEVENTFD", s.IOEVENTFD, 0, 0xFEE0, 4, 7, 4, b"")


def test_the_tsc_frequency_is_the_platforms_unless_set_before_the_vcpus(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    assert vmm.ioctl(vm, "KVM_GET_TSC_KHZ") == vmm.kvm.host.platform.tsc_khz
    vmm.ioctl(vm, "KVM_SET_TSC_KHZ", 1_000_000)
    vcpu = vmm.td_vcpu(vm)
    assert vmm.ioctl(vcpu, "KVM_GET_TSC_KHZ") == 1_000_000
    for device in vm, vcpu:
        with vmm.fails(errno.EINVAL):
            vmm.ioctl(device, "KVM_SET_TSC_KHZ", 2_000_000)


# vCPU


@pytest.fixture
def vcpu(vmm: Vmm) -> Device:
    return vmm.td_vcpu(vmm.initialised_td())


@pytest.mark.parametrize("name", ["REGS", "SREGS", "SREGS2", "FPU", "XSAVE", "XSAVE2", "XCRS", "LAPIC", "DEBUGREGS"])
def test_the_state_of_a_tds_vcpu_is_protected(vmm: Vmm, vcpu: Device, name: str) -> None:
    address = vmm.place(bytes(16384))
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vcpu, f"KVM_GET_{name}", address)
    if name != "XSAVE2":
        with vmm.fails(errno.EINVAL):
            vmm.ioctl(vcpu, f"KVM_SET_{name}", address)


@pytest.mark.parametrize("name", ["REGS", "FPU", "XSAVE", "XCRS", "LAPIC", "DEBUGREGS"])
def test_other_vcpus_give_back_what_was_set(vmm: Vmm, name: str) -> None:
    vcpu = vmm.open(vmm.open(vmm.system, "KVM_CREATE_VM", 0), "KVM_CREATE_VCPU", 0)
    size = NUMBERS[f"KVM_GET_{name}"] >> 16 & 0x3FFF
    address = vmm.place(bytes(range(256)) * (size // 256 + 1))
    vmm.ioctl(vcpu, f"KVM_SET_{name}", address)
    back = vmm.place(bytes(size + 1))
    vmm.ioctl(vcpu, f"KVM_GET_{name}", back)
    assert vmm.memory.read(back, size) == vmm.memory.read(address, size)
    assert vmm.memory.read(back + size, 1) == b"\0"


def test_memory_can_be_populated_ahead_once_the_td_is_finalised(vmm: Vmm, vcpu: Device) -> None:
    values = PAGE, 2 * PAGE, 0, b""
    with vmm.fails(errno.EOPNOTSUPP):
        vmm.call(vcpu, "KVM_PRE_FAULT_MEMORY", s.PRE_FAULT_MEMORY, *values)
    vmm.start_over()
    ready = finalised(vmm)
    address = vmm.place(s.PRE_FAULT_MEMORY.pack(*values))
    vmm.ioctl(ready, "KVM_PRE_FAULT_MEMORY", address)
    assert vmm.back(address, s.PRE_FAULT_MEMORY)[:2] == (3 * PAGE, 0)
    for bad in (0, 0, 0, b""), (1, PAGE, 0, b""), (0, PAGE, 1, b""), ((1 << 64) - PAGE, PAGE, 0, b""):
        with vmm.fails(errno.EINVAL):
            vmm.call(ready, "KVM_PRE_FAULT_MEMORY", s.PRE_FAULT_MEMORY, *bad)


def test_multiprocessing_state_is_kept(vmm: Vmm) -> None:
    vm = vmm.initialised_td()
    first, second = vmm.td_vcpu(vm, 0), vmm.td_vcpu(vm, 1)
    address = vmm.place(bytes(4))
    for vcpu, state in (first, 0), (second, 1):
        vmm.ioctl(vcpu, "KVM_GET_MP_STATE", address)
        assert vmm.back(address, s.MP_STATE) == (state,)
    vmm.command(second, "INIT_VCPU")
    vmm.ioctl(second, "KVM_GET_MP_STATE", address)
    assert vmm.back(address, s.MP_STATE) == (0,)
    vmm.call(second, "KVM_SET_MP_STATE", s.MP_STATE, 3)
    vmm.ioctl(second, "KVM_GET_MP_STATE", address)
    assert vmm.back(address, s.MP_STATE) == (3,)
    with vmm.fails(errno.EINVAL):
        vmm.call(second, "KVM_SET_MP_STATE", s.MP_STATE, 5)


@pytest.mark.parametrize(("capability", "good"), [(1 << 24 | 10, True), (0, False), (33, False), (1 << 63 | 10, False)])
def test_machine_check_banks(vmm: Vmm, vcpu: Device, capability: int, good: bool) -> None:
    address = vmm.place(capability.to_bytes(8, "little"))
    if good:
        vmm.ioctl(vcpu, "KVM_X86_SETUP_MCE", address)
        back = msrs(vmm, 0x179)
        assert vmm.ioctl(vcpu, "KVM_GET_MSRS", back) == 1
        assert vmm.back(back + 8, s.MSR_ENTRY)[2] == capability
    else:
        with vmm.fails(errno.EINVAL):
            vmm.ioctl(vcpu, "KVM_X86_SETUP_MCE", address)


def test_kvm_keeps_its_own_view_of_a_tds_cpuid(vmm: Vmm, vcpu: Device) -> None:
    entries = [entry(Leaf(1), Registers(ecx=1 << 21)), entry(Leaf(0x40000001), Registers(eax=2))]
    vmm.set_cpuid2(vcpu, entries)
    address = vmm.place(s.CPUID2.pack(2, 0) + bytes(80))
    vmm.ioctl(vcpu, "KVM_GET_CPUID2", address)
    assert unpack(vmm.memory.read(address + 8, 80)) == entries
    with vmm.fails(errno.E2BIG):
        vmm.ioctl(vcpu, "KVM_GET_CPUID2", vmm.place(s.CPUID2.pack(1, 0) + bytes(80)))


def test_a_td_has_few_msrs_and_reading_stops_at_one_it_lacks(vmm: Vmm, vcpu: Device) -> None:
    address = msrs(vmm, 0x8B, 0xC0000080, 0xC0000081, 0x8B)  # microcode revision, EFER, STAR
    assert vmm.ioctl(vcpu, "KVM_GET_MSRS", address) == 2
    assert vmm.back(address + 8 + 16, s.MSR_ENTRY)[2] == 0xD01
    assert vmm.ioctl(vcpu, "KVM_SET_MSRS", address) == 1  # EFER is read-only


def test_set_msrs_are_read_back(vmm: Vmm, vcpu: Device) -> None:
    address = vmm.place(s.MSRS.pack(1, 0) + s.MSR_ENTRY.pack(0x8B, 0, 0x2B000590 << 32))
    assert vmm.ioctl(vcpu, "KVM_SET_MSRS", address) == 1
    back = msrs(vmm, 0x8B)
    assert vmm.ioctl(vcpu, "KVM_GET_MSRS", back) == 1
    assert vmm.back(back + 8, s.MSR_ENTRY)[2] == 0x2B000590 << 32


def finalised(vmm: Vmm) -> Device:
    vm = vmm.initialised_td()
    vcpu = vmm.td_vcpu(vm)
    vmm.command(vcpu, "INIT_VCPU")
    vmm.command(vm, "FINALIZE_VM")
    return vcpu


def test_run_waits(vmm: Vmm) -> None:
    assert vmm.answer(finalised(vmm), NUMBERS["KVM_RUN"], 0) == Wait()


def test_run_before_finalize_vm_is_einval(vmm: Vmm, vcpu: Device) -> None:
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vcpu, "KVM_RUN")


def test_immediate_exit_ends_run_with_eintr(vmm: Vmm) -> None:
    vcpu = finalised(vmm)
    pages = mmap.mmap(-1, 12288)
    vcpu.attached(pages)
    assert vmm.answer(vcpu, NUMBERS["KVM_RUN"], 0) == Wait()
    pages[1:2] = b"\1"
    with vmm.fails(errno.EINTR):
        vmm.ioctl(vcpu, "KVM_RUN")


def test_a_signal_mask_is_8_bytes_or_none(vmm: Vmm, vcpu: Device) -> None:
    assert vmm.ioctl(vcpu, "KVM_SET_SIGNAL_MASK", 0) == 0
    assert vmm.ioctl(vcpu, "KVM_SET_SIGNAL_MASK", vmm.place(s.SIGNAL_MASK.pack(8) + bytes(8))) == 0
    with vmm.fails(errno.EINVAL):
        vmm.ioctl(vcpu, "KVM_SET_SIGNAL_MASK", vmm.place(s.SIGNAL_MASK.pack(16) + bytes(16)))
