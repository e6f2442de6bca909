"""Reading a TD's CPUID from the module, leaf by leaf (tdx_read_cpuid, arch/x86/kvm/vmx/tdx.c)."""

from __future__ import annotations

from plugin.cpuid.leaf import Leaf
from plugin.kvm.policy.td import WIDTH_LEAF, with_guest_width
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi.cpuid import Entry
from plugin.tdx_module import Td

LAST_READABLE = 0x7F
"""The last leaf within a range that can be read: TDX_MD_UNREADABLE_LEAF_MASK is bits 30:7."""

_SUBLEAVES = 128


def read_cpuid(td: Td, gpaw: int) -> list[Entry]:
    """Return KVM_TDX_GET_CPUID's entries: leaf 0 to its EAX, then 0x80000000 to its EAX.

    Each leaf is tried without a sub-leaf; if the module has no such field, sub-leaves 0, 1, 2 ... are read until one
    fails. Leaves with a bit of 30:7 set cannot be read. `gpaw` is the guest physical address width in bits.
    """
    entries: list[Entry] = []
    for first in (0x0, 0x80000000):
        head = read_leaf(td, first, gpaw)
        entries += head
        for number in range(first + 1, min(head[0].registers.eax, first + LAST_READABLE) + 1):
            entries += read_leaf(td, number, gpaw)
    return entries[: c.MAX_CPUID_ENTRIES]


def read_leaf(td: Td, number: int, gpaw: int) -> list[Entry]:
    """Return one leaf with all its sub-leaves; nothing if the module has no readable field for it."""
    if number & ~(1 << 31) > LAST_READABLE:
        return []
    value = td.read(Leaf(number))
    if value is not None:
        if number == WIDTH_LEAF.number:
            value = with_guest_width(value, gpaw)
        return [Entry(number, 0, 0, value)]
    found = []
    for subleaf in range(_SUBLEAVES):
        value = td.read(Leaf(number, subleaf))
        if value is None:
            break
        found.append(Entry(number, subleaf, c.CPUID_FLAG_SIGNIFCANT_INDEX, value))
    return found
