"""The MSRs KVM names to a VMM, their values at reset, and those a TD's vCPU can be asked for.

From msrs_to_save_*, emulated_msrs_all and msr_based_features_all (arch/x86/kvm/x86.c) for an Intel host without
nested virtualization, Intel PT or Hyper-V emulation, and tdx_has_emulated_msr (arch/x86/kvm/vmx/tdx.c).
"""

from __future__ import annotations

import errno

from plugin.kvm.device.descriptor import Call
from plugin.kvm.uapi import structs as s

MAX_IO_MSRS = 256  # MAX_IO_MSRS in arch/x86/kvm/x86.c

UCODE_REV = 0x8B
PLATFORM_INFO = 0xCE
ARCH_CAPABILITIES = 0x10A
PERF_CAPABILITIES = 0x345
FEAT_CTL = 0x3A
APICBASE = 0x1B
EFER = 0xC0000080
MCG_EXT_CTL = 0x4D0
MISC_ENABLE = 0x1A0
PAT = 0x277

_COUNTERS = 8
_PMU = (
    0x309, 0x30A, 0x30B, 0x38D, 0x38E, 0x38F, 0x390,
    *range(0xC1, 0xC1 + _COUNTERS), *range(0x186, 0x186 + _COUNTERS),
)  # fmt: skip
_CET = (0x6A0, 0x6A2, 0x6A4, 0x6A5, 0x6A6, 0x6A7, 0x6A8)
_PARAVIRTUAL = (0x11, 0x12, *range(0x4B564D00, 0x4B564D08))

INDEX_LIST: tuple[int, ...] = (
    0x174, 0x175, 0x176, 0xC0000081, 0xC0000083, 0xC0000102, 0xC0000084, 0xC0000082,  # SYSENTER, SYSCALL
    0x10, PAT, FEAT_CTL, 0xC0000103, 0x48, 0xE1,  # TSC, PAT, FEAT_CTL, TSC_AUX, SPEC_CTRL, UMWAIT_CONTROL
    0x1C4, 0x1C5, 0xDA0, *_CET, *_PMU,  # XFD, XFD_ERR, XSS
    *_PARAVIRTUAL, 0x3B, 0x6E0, ARCH_CAPABILITIES, PERF_CAPABILITIES, MISC_ENABLE,
    0x17A, 0x17B, MCG_EXT_CTL, 0x9E, 0x34, PLATFORM_INFO, 0x140, 0x1FC, UCODE_REV, 0xC0010015,
)  # fmt: skip
"""What KVM_GET_MSR_INDEX_LIST names: what a VMM saves and restores."""

FEATURES: dict[int, int] = {
    # Immune to Meltdown, L1TF on entry, MDS, TAA, MMIO stale data, PBRSB, GDS, RFDS; enhanced IBRS.
    ARCH_CAPABILITIES: sum(1 << bit for bit in (0, 1, 3, 5, 6, 8, 13, 14, 15, 24, 26, 27)),
    PERF_CAPABILITIES: 1 << 13,  # full-width counter writes; no LBR, no PEBS
    PLATFORM_INFO: 1 << 31,  # CPUID faulting can be turned on
    UCODE_REV: 1 << 32,
}
"""Feature MSRs (KVM_GET_MSR_FEATURE_INDEX_LIST) and the values KVM_GET_MSRS on /dev/kvm gives."""

RESET: dict[int, int] = FEATURES | {
    PAT: 0x0007040600070406,
    MISC_ENABLE: 1 << 11 | 1 << 12 | 1,  # no BTS, no PEBS, fast strings
    0x10: 0,
}

# Of a TD KVM emulates only these, and takes no write to three of them (tdx_is_read_only_msr).
_TD = (
    (UCODE_REV, UCODE_REV), (ARCH_CAPABILITIES, ARCH_CAPABILITIES), (0x1FC, 0x1FC), (PAT, PAT), (0xFE, 0xFE),
    (0x200, 0x26F), (0x2FF, 0x2FF), (0x6E0, 0x6E0), (MISC_ENABLE, MISC_ENABLE), (PLATFORM_INFO, PLATFORM_INFO),
    (0x140, 0x140), (APICBASE, APICBASE), (EFER, EFER), (FEAT_CTL, FEAT_CTL), (0x179, 0x17B),
    (MCG_EXT_CTL, MCG_EXT_CTL), (0x400, 0x47F), (0x280, 0x29F), (0x4B564D05, 0x4B564D05), (0x800, 0x8FF),
)  # fmt: skip
_TD_X2APIC_HIDDEN = (0x808, 0x80A, 0x80B, *range(0x810, 0x828))  # in the virtual APIC page, out of KVM's reach
_TD_READ_ONLY = (APICBASE, EFER, FEAT_CTL)
TD_RESET: dict[int, int] = {
    APICBASE: 0xFEE00C00,  # x2APIC mode, enabled
    EFER: 0xD01,  # SCE, LME, LMA, NX
    FEAT_CTL: 1,  # locked
}


def td_can_read(index: int) -> bool:
    """Whether KVM_GET_MSRS answers for this MSR on a TD's vCPU."""
    return index not in _TD_X2APIC_HIDDEN and any(first <= index <= last for first, last in _TD)


def td_can_write(index: int) -> bool:
    """Whether KVM_SET_MSRS takes this MSR on a TD's vCPU."""
    return index not in _TD_READ_ONLY and td_can_read(index)


def read(call: Call) -> list[tuple[int, int]]:
    """Read struct kvm_msrs as (index, data) pairs. Raises BadAddress; Rejected E2BIG for 256 or more (msr_io)."""
    count, _ = call.argument_struct()
    if count >= MAX_IO_MSRS:
        raise call.reject(errno.E2BIG, f"{count} MSRs; fewer than {MAX_IO_MSRS} are taken")
    raw = call.memory.read(call.argument + s.MSRS.size, count * s.MSR_ENTRY.size) if count else b""
    entries = [s.MSR_ENTRY.unpack(raw, at) for at in range(0, len(raw), s.MSR_ENTRY.size)]
    return [(index, data) for index, _, data in entries]


def write(call: Call, values: list[tuple[int, int]]) -> None:
    """Write (index, data) pairs into the entries behind struct kvm_msrs. Raises BadAddress."""
    if values:
        call.write(b"".join(s.MSR_ENTRY.pack(index, 0, data) for index, data in values), s.MSRS.size)
