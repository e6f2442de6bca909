"""What KVM_CHECK_EXTENSION answers: an explicit table; a capability that is not in it is 0.

Values as kvm_vm_ioctl_check_extension (arch/x86/kvm/x86.c) and kvm_vm_ioctl_check_extension_generic
(virt/kvm/kvm_main.c) give them on an Intel host with TDX; 0 is said aloud where a VMM would otherwise use
something that is not simulated.
"""

from __future__ import annotations

from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi.capabilities import NUMBERS

PRESENT_CPUS = 256
"""Logical CPUs of the simulated machine; KVM limits a TD to as many vCPUs (tdx_vm_init)."""

MAX_VCPUS = 1024  # CONFIG_KVM_MAX_NR_VCPUS
MCE_BANKS = 32  # KVM_MAX_MCE_BANKS
MCE_CAP_SUPPORTED = 1 << 24 | 1 << 8 | 1 << 27 | 1 << 10  # MCG_SER_P, MCG_CTL_P, MCG_LMCE_P, MCG_CMCI_P
MMAP_PAGES = 3  # kvm_run, port I/O data, coalesced MMIO ring

_YES = (
    "IRQCHIP HLT MMU_SHADOW_CACHE_CONTROL USER_MEMORY SET_TSS_ADDR EXT_CPUID CLOCKSOURCE PIT NOP_IO_DELAY MP_STATE "
    "SYNC_MMU DESTROY_MEMORY_REGION_WORKS USER_NMI SET_GUEST_DEBUG REINJECT_CONTROL IRQ_INJECT_STATUS "
    "JOIN_MEMORY_REGIONS_WORKS IRQFD PIT2 SET_BOOT_CPU_ID PIT_STATE2 IOEVENTFD SET_IDENTITY_MAP_ADDR "
    "INTERNAL_ERROR_DATA VCPU_EVENTS DEBUGREGS X86_ROBUST_SINGLESTEP ENABLE_CAP XSAVE XCRS ASYNC_PF TSC_CONTROL "
    "GET_TSC_KHZ TSC_DEADLINE_TIMER KVMCLOCK_CTRL SIGNAL_MSI READONLY_MEM IRQFD_RESAMPLE DEVICE_CTRL EXT_EMUL_CPUID "
    "ENABLE_CAP_VM IOEVENTFD_NO_LENGTH CHECK_EXTENSION_VM X86_SMM SPLIT_IRQCHIP IOEVENTFD_ANY_LENGTH "
    "IMMEDIATE_EXIT GET_MSR_FEATURES MSR_PLATFORM_INFO COALESCED_PIO EXCEPTION_PAYLOAD PMU_EVENT_FILTER ASYNC_PF_INT "
    "LAST_CPU STEAL_TIME X86_MSR_FILTER ENFORCE_PV_FEATURE_CPUID SREGS2 EXIT_ON_EMULATION_FAILURE SYS_ATTRIBUTES "
    "PMU_CAPABILITY VM_TSC_CONTROL X86_TRIPLE_FAULT_EVENT VM_DISABLE_NX_HUGE_PAGES USER_MEMORY2 MEMORY_FAULT_INFO "
    "GUEST_MEMFD PRE_FAULT_MEMORY X86_APIC_BUS_CYCLES_NS X86_GUEST_MODE"
)

_VALUES = {
    "NR_VCPUS": PRESENT_CPUS,
    "MAX_VCPUS": MAX_VCPUS,
    "MAX_VCPU_ID": c.MAX_VCPU_IDS,
    "NR_MEMSLOTS": c.USER_MEM_SLOTS,
    "IRQ_ROUTING": 4096,  # KVM_MAX_IRQ_ROUTES
    "COALESCED_MMIO": c.CAP_COALESCED_MMIO_PAGE,
    "MCE": MCE_BANKS,
    "ADJUST_CLOCK": c.CLOCK_TSC_STABLE | c.CLOCK_REALTIME | c.CLOCK_HOST_TSC,
    "MULTI_ADDRESS_SPACE": 2,  # the second one is SMM's
    "X2APIC_API": 0b11,  # 32-bit ids, no broadcast quirk
    "X86_DISABLE_EXITS": 0b1111,  # MWAIT, HLT, PAUSE, C-states
    "X86_USER_SPACE_MSR": 0b111,
    "X86_BUS_LOCK_EXIT": 0b11,
    "X86_NOTIFY_VMEXIT": 0b11,
    "SET_GUEST_DEBUG2": 0x3F0003 | 1 << 20,
    "DISABLE_QUIRKS2": 0x3FF,
    "EXIT_HYPERCALL": 1 << 12,  # KVM_HC_MAP_GPA_RANGE
    "MEMORY_ATTRIBUTES": c.MEMORY_ATTRIBUTE_PRIVATE,
    "VM_TYPES": 1 << c.X86_DEFAULT_VM | 1 << c.X86_TDX_VM,
    # Not simulated, and a VMM does well without:
    "NESTED_STATE": 0,
    "DIRTY_LOG_RING": 0,
    "DIRTY_LOG_RING_ACQ_REL": 0,
    "MANUAL_DIRTY_LOG_PROTECT2": 0,
    "BINARY_STATS_FD": 0,
    "GUEST_MEMFD_FLAGS": 0,
    "VAPIC": 0,
}

_TABLE: dict[int, int] = {NUMBERS[name]: 1 for name in _YES.split()} | {
    NUMBERS[name]: value for name, value in _VALUES.items()
}

# A TD's memory cannot be read-only or seen from SMM, and its end-of-interrupt cannot be observed (tdx_vm_init).
_TD: dict[int, int] = {
    NUMBERS["MAX_VCPUS"]: PRESENT_CPUS,
    NUMBERS["READONLY_MEM"]: 0,
    NUMBERS["X86_SMM"]: 0,
    NUMBERS["MULTI_ADDRESS_SPACE"]: 1,
    NUMBERS["IRQFD_RESAMPLE"]: 0,
}

_DEFAULT_VM: dict[int, int] = {NUMBERS["MEMORY_ATTRIBUTES"]: 0, NUMBERS["GUEST_MEMFD"]: 0}

SETTABLE: dict[int, int] = {
    NUMBERS[name]: mask
    for name, mask in {
        "EXIT_HYPERCALL": 1 << 12,
        "X2APIC_API": 0b11,
        "X86_DISABLE_EXITS": 0b1111,
        "X86_USER_SPACE_MSR": 0b111,
        "X86_BUS_LOCK_EXIT": 0b11,
        "X86_NOTIFY_VMEXIT": 0xFFFFFFFF00000003,
        "DISABLE_QUIRKS": 0x3FF,
        "DISABLE_QUIRKS2": 0x3FF,
        "PMU_CAPABILITY": 1,
        "EXCEPTION_PAYLOAD": (1 << 64) - 1,  # any value but 0 means on
        "X86_TRIPLE_FAULT_EVENT": (1 << 64) - 1,
        "EXIT_ON_EMULATION_FAILURE": 1,
        "MSR_PLATFORM_INFO": (1 << 64) - 1,
        "X86_GUEST_MODE": 1,
        "VM_DISABLE_NX_HUGE_PAGES": 0,
    }.items()
}
"""What KVM_ENABLE_CAP takes on a VM, by number: argument bits that may be set."""


def value(number: int, xsave_size: int, vm_type: int | None = None) -> int:
    """Return a capability's value; `vm_type` is None for the question on /dev/kvm itself.

    `xsave_size` is the size in bytes of what KVM_GET_XSAVE2 writes.
    """
    if number == NUMBERS["XSAVE2"]:
        return xsave_size
    if vm_type is not None:
        own = _TD if vm_type == c.X86_TDX_VM else _DEFAULT_VM
        if number in own:
            return own[number]
    return _TABLE.get(number, 0)
