"""What KVM decides about a TD by itself, whatever the TDX module could do: constants and pure rules.

From arch/x86/kvm/vmx/tdx.c. The simulated KVM keeps to it, and qmp_client explains by it.
"""

from __future__ import annotations

from plugin.cpuid.leaf import Leaf, Registers

SUPPORTED_TD_ATTRS = 1 << 28
"""KVM_SUPPORTED_TD_ATTRS: SEPT_VE_DISABLE is all that KVM lets a VMM set."""

UNSUPPORTED_CPUID: dict[Leaf, Registers] = {
    # tdx_clear_unsupported_cpuid: HLE and RTM need a host that restores IA32_TSX_CTRL, WAITPKG one that restores
    # IA32_UMWAIT_CONTROL.
    Leaf(0x7, 0): Registers(ebx=1 << 4 | 1 << 11, ecx=1 << 5),
}
"""Bits that no VMM can have, whatever the module lets it configure."""

WIDTH_LEAF = Leaf(0x80000008)
WIDTH = Registers(eax=0xFF << 16)
"""0x80000008 EAX[23:16], the guest physical address width in bits: KVM's own, the module does not know it."""

ADDED_CPUID: dict[Leaf, Registers] = {WIDTH_LEAF: WIDTH}
"""What KVM offers on its own; it does not go to the module."""

FOUR_LEVEL_WIDTH, FIVE_LEVEL_WIDTH = WIDTHS = 48, 52
"""The widths that KVM_TDX_INIT_VM insists on; the greater one needs 5-level EPT (setup_tdparams_eptp_controls)."""


def guest_width(value: Registers) -> int:
    """Return the guest physical address width in bits that 0x80000008 tells."""
    return value.eax >> 16 & 0xFF


def with_guest_width(value: Registers, width: int) -> Registers:
    """Return 0x80000008 with another guest physical address width, given in bits."""
    return value.with_("eax", value.eax & ~WIDTH.eax | width << 16)


def for_module(leaf: Leaf, value: Registers) -> Registers:
    """Return a configured leaf as the module gets it: without what KVM offers on its own."""
    return value.without(WIDTH) if leaf.number == WIDTH_LEAF.number else value


def is_paravirtual(leaf: Leaf) -> bool:
    """Whether a leaf is a hypervisor's, 0x40000000 to 0x4fffffff, which no processor has and KVM answers."""
    return leaf.number >> 28 == 4
