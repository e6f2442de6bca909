"""Every ioctl that is served: request number, name, kinds of descriptor, structure, and who handles it."""

from __future__ import annotations

from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.layout import Layout
from plugin.typing import NamedTuple

TYPE = 0xAE  # the type byte of all KVM requests
READ, WRITE = 2, 1  # as the kernel sees user space: READ writes to the caller


class Request(NamedTuple):
    """One row: `kinds` are "system", "vm", "vcpu"; `handler` names a method of each kind's device class."""

    number: int
    name: str
    kinds: tuple[str, ...]
    layout: Layout | None
    handler: str


def _request(direction: int, nr: int, size: int) -> int:
    return direction << 30 | size << 16 | TYPE << 8 | nr


def _io(nr: int, name: str, kinds: str, handler: str) -> Request:
    return Request(_request(0, nr, 0), name, tuple(kinds.split()), None, handler)


def _with(direction: int, nr: int, name: str, kinds: str, layout: Layout, handler: str) -> Request:
    return Request(_request(direction, nr, layout.size), name, tuple(kinds.split()), layout, handler)


def _word(direction: int, nr: int, size: int, name: str, kinds: str, handler: str) -> Request:
    """A request whose argument points to one integer of `size` bytes."""
    return Request(_request(direction, nr, size), name, tuple(kinds.split()), None, handler)


REQUESTS: tuple[Request, ...] = (
    # /dev/kvm
    _io(0x00, "KVM_GET_API_VERSION", "system", "get_api_version"),
    _io(0x01, "KVM_CREATE_VM", "system", "create_vm"),
    _with(READ | WRITE, 0x02, "KVM_GET_MSR_INDEX_LIST", "system", s.MSR_LIST, "get_msr_index_list"),
    _io(0x03, "KVM_CHECK_EXTENSION", "system vm", "check_extension"),
    _io(0x04, "KVM_GET_VCPU_MMAP_SIZE", "system", "get_vcpu_mmap_size"),
    _with(READ | WRITE, 0x05, "KVM_GET_SUPPORTED_CPUID", "system", s.CPUID2, "get_supported_cpuid"),
    _with(READ | WRITE, 0x09, "KVM_GET_EMULATED_CPUID", "system", s.CPUID2, "get_emulated_cpuid"),
    _with(READ | WRITE, 0x0A, "KVM_GET_MSR_FEATURE_INDEX_LIST", "system", s.MSR_LIST, "get_msr_feature_index_list"),
    _word(READ, 0x9D, 8, "KVM_X86_GET_MCE_CAP_SUPPORTED", "system", "get_mce_cap_supported"),
    _with(READ | WRITE, 0x88, "KVM_GET_MSRS", "system vcpu", s.MSRS, "get_msrs"),
    _with(WRITE, 0xE2, "KVM_GET_DEVICE_ATTR", "system", s.DEVICE_ATTR, "get_device_attr"),
    _with(WRITE, 0xE3, "KVM_HAS_DEVICE_ATTR", "system vm", s.DEVICE_ATTR, "has_device_attr"),
    # a VM
    _io(0x41, "KVM_CREATE_VCPU", "vm", "create_vcpu"),
    _with(WRITE, 0x42, "KVM_GET_DIRTY_LOG", "vm", s.DIRTY_LOG, "get_dirty_log"),
    _io(0x44, "KVM_SET_NR_MMU_PAGES", "vm", "accept"),
    _with(WRITE, 0x46, "KVM_SET_USER_MEMORY_REGION", "vm", s.USERSPACE_MEMORY_REGION, "set_user_memory_region"),
    _io(0x47, "KVM_SET_TSS_ADDR", "vm", "set_tss_addr"),
    _word(WRITE, 0x48, 8, "KVM_SET_IDENTITY_MAP_ADDR", "vm", "set_identity_map_addr"),
    _with(WRITE, 0x49, "KVM_SET_USER_MEMORY_REGION2", "vm", s.USERSPACE_MEMORY_REGION2, "set_user_memory_region2"),
    _io(0x60, "KVM_CREATE_IRQCHIP", "vm", "create_irqchip"),
    _with(WRITE, 0x61, "KVM_IRQ_LINE", "vm", s.IRQ_LEVEL, "irq_line"),
    _with(READ | WRITE, 0x62, "KVM_GET_IRQCHIP", "vm", s.IRQCHIP, "get_irqchip"),
    _with(READ, 0x63, "KVM_SET_IRQCHIP", "vm", s.IRQCHIP, "set_irqchip"),
    _with(READ | WRITE, 0x67, "KVM_IRQ_LINE_STATUS", "vm", s.IRQ_LEVEL, "irq_line_status"),
    _with(WRITE, 0x67, "KVM_REGISTER_COALESCED_MMIO", "vm", s.COALESCED_MMIO_ZONE, "take"),
    _with(WRITE, 0x68, "KVM_UNREGISTER_COALESCED_MMIO", "vm", s.COALESCED_MMIO_ZONE, "take"),
    _with(WRITE, 0x6A, "KVM_SET_GSI_ROUTING", "vm", s.IRQ_ROUTING, "set_gsi_routing"),
    _io(0x71, "KVM_REINJECT_CONTROL", "vm", "reinject_control"),
    _with(WRITE, 0x76, "KVM_IRQFD", "vm", s.IRQFD, "irqfd"),
    _with(WRITE, 0x77, "KVM_CREATE_PIT2", "vm", s.PIT_CONFIG, "create_pit2"),
    _io(0x78, "KVM_SET_BOOT_CPU_ID", "vm", "set_boot_cpu_id"),
    _with(WRITE, 0x79, "KVM_IOEVENTFD", "vm", s.IOEVENTFD, "ioeventfd"),
    _with(WRITE, 0x7B, "KVM_SET_CLOCK", "vm", s.CLOCK_DATA, "set_clock"),
    _with(READ, 0x7C, "KVM_GET_CLOCK", "vm", s.CLOCK_DATA, "get_clock"),
    _with(READ, 0x9F, "KVM_GET_PIT2", "vm", s.PIT_STATE2, "get_pit2"),
    _with(WRITE, 0xA0, "KVM_SET_PIT2", "vm", s.PIT_STATE2, "set_pit2"),
    _io(0xA2, "KVM_SET_TSC_KHZ", "vm vcpu", "set_tsc_khz"),
    _io(0xA3, "KVM_GET_TSC_KHZ", "vm vcpu", "get_tsc_khz"),
    _with(WRITE, 0xA3, "KVM_ENABLE_CAP", "vm vcpu", s.ENABLE_CAP, "enable_cap"),
    _with(WRITE, 0xA5, "KVM_SIGNAL_MSI", "vm", s.MSI, "signal_msi"),
    _word(READ | WRITE, 0xBA, 8, "KVM_MEMORY_ENCRYPT_OP", "vm vcpu", "memory_encrypt_op"),
    _with(WRITE, 0xC6, "KVM_X86_SET_MSR_FILTER", "vm", s.MSR_FILTER, "take"),
    _with(WRITE, 0xD2, "KVM_SET_MEMORY_ATTRIBUTES", "vm", s.MEMORY_ATTRIBUTES, "set_memory_attributes"),
    _with(READ | WRITE, 0xD4, "KVM_CREATE_GUEST_MEMFD", "vm", s.CREATE_GUEST_MEMFD, "create_guest_memfd"),
    _with(READ | WRITE, 0xE0, "KVM_CREATE_DEVICE", "vm", s.CREATE_DEVICE, "create_device"),
    _io(0xCE, "KVM_GET_STATS_FD", "vm vcpu", "get_stats_fd"),
    # a vCPU
    _io(0x80, "KVM_RUN", "vcpu", "run"),
    _with(READ, 0x81, "KVM_GET_REGS", "vcpu", s.REGS, "get_state"),
    _with(WRITE, 0x82, "KVM_SET_REGS", "vcpu", s.REGS, "set_state"),
    _with(READ, 0x83, "KVM_GET_SREGS", "vcpu", s.SREGS, "get_state"),
    _with(WRITE, 0x84, "KVM_SET_SREGS", "vcpu", s.SREGS, "set_state"),
    _with(WRITE, 0x86, "KVM_INTERRUPT", "vcpu", s.INTERRUPT, "interrupt"),
    _with(WRITE, 0x89, "KVM_SET_MSRS", "vcpu", s.MSRS, "set_msrs"),
    _with(WRITE, 0x8B, "KVM_SET_SIGNAL_MASK", "vcpu", s.SIGNAL_MASK, "set_signal_mask"),
    _with(READ, 0x8C, "KVM_GET_FPU", "vcpu", s.FPU, "get_state"),
    _with(WRITE, 0x8D, "KVM_SET_FPU", "vcpu", s.FPU, "set_state"),
    _with(READ, 0x8E, "KVM_GET_LAPIC", "vcpu", s.LAPIC_STATE, "get_state"),
    _with(WRITE, 0x8F, "KVM_SET_LAPIC", "vcpu", s.LAPIC_STATE, "set_state"),
    _with(WRITE, 0x90, "KVM_SET_CPUID2", "vcpu", s.CPUID2, "set_cpuid2"),
    _with(READ | WRITE, 0x91, "KVM_GET_CPUID2", "vcpu", s.CPUID2, "get_cpuid2"),
    _with(READ | WRITE, 0x92, "KVM_TPR_ACCESS_REPORTING", "vcpu", s.TPR_ACCESS_CTL, "tpr_access_reporting"),
    _with(WRITE, 0x93, "KVM_SET_VAPIC_ADDR", "vcpu", s.VAPIC_ADDR, "take"),
    _with(READ, 0x98, "KVM_GET_MP_STATE", "vcpu", s.MP_STATE, "get_mp_state"),
    _with(WRITE, 0x99, "KVM_SET_MP_STATE", "vcpu", s.MP_STATE, "set_mp_state"),
    _io(0x9A, "KVM_NMI", "vcpu", "accept"),
    _with(WRITE, 0x9B, "KVM_SET_GUEST_DEBUG", "vcpu", s.GUEST_DEBUG, "set_guest_debug"),
    _word(WRITE, 0x9C, 8, "KVM_X86_SETUP_MCE", "vcpu", "setup_mce"),
    _with(READ, 0x9F, "KVM_GET_VCPU_EVENTS", "vcpu", s.VCPU_EVENTS, "get_state"),
    _with(WRITE, 0xA0, "KVM_SET_VCPU_EVENTS", "vcpu", s.VCPU_EVENTS, "set_state"),
    _with(READ, 0xA1, "KVM_GET_DEBUGREGS", "vcpu", s.DEBUGREGS, "get_state"),
    _with(WRITE, 0xA2, "KVM_SET_DEBUGREGS", "vcpu", s.DEBUGREGS, "set_state"),
    _with(READ, 0xA4, "KVM_GET_XSAVE", "vcpu", s.XSAVE, "get_state"),
    _with(WRITE, 0xA5, "KVM_SET_XSAVE", "vcpu", s.XSAVE, "set_state"),
    _with(READ, 0xA6, "KVM_GET_XCRS", "vcpu", s.XCRS, "get_state"),
    _with(WRITE, 0xA7, "KVM_SET_XCRS", "vcpu", s.XCRS, "set_state"),
    _io(0xAD, "KVM_KVMCLOCK_CTRL", "vcpu", "kvmclock_ctrl"),
    _io(0xB7, "KVM_SMI", "vcpu", "smi"),
    _with(READ, 0xCC, "KVM_GET_SREGS2", "vcpu", s.SREGS2, "get_state"),
    _with(WRITE, 0xCD, "KVM_SET_SREGS2", "vcpu", s.SREGS2, "set_state"),
    _with(READ, 0xCF, "KVM_GET_XSAVE2", "vcpu", s.XSAVE, "get_xsave2"),
    _with(READ | WRITE, 0xD5, "KVM_PRE_FAULT_MEMORY", "vcpu", s.PRE_FAULT_MEMORY, "pre_fault_memory"),
)  # fmt: skip

NUMBERS: dict[str, int] = {row.name: row.number for row in REQUESTS}


def served_by(kind: str) -> dict[int, Request]:
    """Return the rows of one kind of descriptor, by request number."""
    return {row.number: row for row in REQUESTS if kind in row.kinds}
