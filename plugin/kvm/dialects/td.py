"""A TD as KVM knows it: the record of what it was asked for and became, and its CPUID, read from the module."""

from __future__ import annotations

from collections.abc import Mapping

from plugin.cpuid.leaf import Leaf, Registers
from plugin.kvm.policy import WIDTH_LEAF, with_guest_width
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi.cpuid import Entry, leaf_as_json
from plugin.tdx_module import Td
from plugin.typing import Any

LAST_READABLE = 0x7F
"""The last leaf within a range that can be read: TDX_MD_UNREADABLE_LEAF_MASK is bits 30:7."""

_SUBLEAVES = 128


class TdRecord:
    """One TD, from a successful KVM_TDX_INIT_VM on."""

    __slots__ = (
        "_copied", "asked", "attributes", "finalised", "gpaw", "interface", "kvm_copy", "kvm_filtered", "td", "vcpus",
        "xfam",
    )  # fmt: skip

    def __init__(
        self,
        interface: str,
        attributes: int,
        xfam: int,
        asked: tuple[Entry, ...],
        kvm_filtered: Mapping[Leaf, Registers],
        gpaw: int,
        td: Td,
    ) -> None:
        self.interface = interface
        """The dialect the VMM spoke: "upstream" or "proposal"."""
        self.attributes = attributes
        """ATTRIBUTES as the VMM asked; the TD's own, with fixed-1 bits, are in `td.params`."""
        self.xfam = xfam
        """XFAM as the VMM asked."""
        self.asked = asked
        """The CPUID entries of KVM_TDX_INIT_VM, in the VMM's order."""
        self.kvm_filtered = kvm_filtered
        """Bits that the module can configure and KVM does not let the VMM have."""
        self.gpaw = gpaw
        """Guest physical address width: 48 or 52."""
        self.td = td
        self.kvm_copy: tuple[Entry, ...] = ()
        """What KVM has of the CPUID of the first vCPU: of the lowest number that has one."""
        self._copied = 0
        self.vcpus = 0
        self.finalised = False

    def copied(self, number: int, entries: tuple[Entry, ...]) -> None:
        """Note what KVM has of the CPUID of vCPU `number`."""
        if not self.kvm_copy or number <= self._copied:
            self.kvm_copy, self._copied = entries, number

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON objects; CPUID entries as the QMP commands spell them."""
        return {
            "interface": self.interface,
            "requested": {
                "attributes": self.attributes,
                "xfam": self.xfam,
                "cpuid": [entry.as_json() for entry in self.asked],
            },
            "attributes": self.td.params.attributes,
            "xfam": self.td.params.xfam,
            "gpaw": self.gpaw,
            "cpuid-config": [leaf_as_json(leaf, value) for leaf, value in self.td.params.cpuid_config.items()],
            "cpuid": [leaf_as_json(leaf, registers) for leaf, registers in self.td.cpuid.items()],
            "kvm-filtered": [leaf_as_json(leaf, registers) for leaf, registers in self.kvm_filtered.items()],
            "kvm-copy": [entry.as_json() for entry in self.kvm_copy],
            "vcpus": self.vcpus,
            "finalised": self.finalised,
        }


class TdState:
    """What KVM knows of an initialised TD: struct kvm_tdx."""

    __slots__ = ("record", "shared_bit", "td")

    def __init__(self, td: Td, record: TdRecord) -> None:
        self.td = td
        self.record = record
        self.shared_bit = 1 << (record.gpaw - 1)
        """The guest physical address bit that is set for shared memory."""

    def is_private(self, gpa: int) -> bool:
        """Whether an address lacks the shared bit (vt_is_tdx_private_gpa)."""
        return not gpa & self.shared_bit


def read_cpuid(td: Td, gpaw: int) -> list[Entry]:
    """Return KVM_TDX_GET_CPUID's entries: leaf 0 to its EAX, then 0x80000000 to its EAX (tdx_read_cpuid).

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
