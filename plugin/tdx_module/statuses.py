"""SEAMCALL completion statuses and operand ids this model can answer (TDX module ABI specification).

A status is 64 bits wide. Bit 63 = error, bits 47:32 = class and number, bits 31:0 = details; for
OPERAND_INVALID the details are the operand's id, for INCORRECT_MSR_VALUE the MSR's address.
"""

from __future__ import annotations

OPERAND_INVALID = 0xC000_0100_0000_0000
CPUID_LEAF_1F_FORMAT_UNRECOGNIZED = 0xC000_0904_0000_0000
INCORRECT_MSR_VALUE = 0xC000_0921_0000_0000

ATTRIBUTES = 64
XFAM = 65
CPUID_CONFIG = 69
TSC_FREQUENCY = 70

IA32_ARCH_CAPABILITIES = 0x10A

NO_SUBLEAF = 0xFFFF_FFFF
"""The sub-leaf half of a CPUID leaf operand in RCX when the leaf has no sub-leaves."""

_STATUSES = {
    OPERAND_INVALID: "OPERAND_INVALID",
    CPUID_LEAF_1F_FORMAT_UNRECOGNIZED: "CPUID_LEAF_1F_FORMAT_UNRECOGNIZED",
    INCORRECT_MSR_VALUE: "INCORRECT_MSR_VALUE",
}
_OPERANDS = {
    ATTRIBUTES: "ATTRIBUTES",
    XFAM: "XFAM",
    CPUID_CONFIG: "CPUID_CONFIG",
    TSC_FREQUENCY: "TSC_FREQUENCY",
}


def describe(status: int) -> str:
    """Name a 64-bit status and its details: ``OPERAND_INVALID(CPUID_CONFIG)``; hexadecimal when unknown."""
    name = _STATUSES.get(status & ~0xFFFF_FFFF)
    if name is None:
        return f"{status:#018x}"
    details = status & 0xFFFF_FFFF
    if not details:
        return name
    operand = _OPERANDS.get(details) if name == "OPERAND_INVALID" else None
    return f"{name}({operand or hex(details)})"
