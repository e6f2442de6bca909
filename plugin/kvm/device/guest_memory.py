"""A VM's memory slots and which guest physical addresses are private.

Only the bookkeeping: where memory is and whether a guest_memfd backs it. The rules are
kvm_set_memory_region's and kvm_vm_set_mem_attributes' (virt/kvm/kvm_main.c).
"""

from __future__ import annotations

import errno

from plugin.kvm.contract import Rejected
from plugin.kvm.uapi import constants as c
from plugin.typing import NamedTuple

_TOP = 1 << 64


class Slot(NamedTuple):
    """One memory slot: guest physical address and size in bytes, flags, and where the VMM mapped it."""

    gpa: int
    size: int
    flags: int
    userspace_addr: int
    memfd_offset: int = 0

    @property
    def end(self) -> int:
        """The first address behind the slot."""
        return self.gpa + self.size


class GuestMemory:
    """The slots of one VM by id (address space in bits 31:16), and its private ranges."""

    __slots__ = ("private", "slots")

    def __init__(self) -> None:
        self.slots: dict[int, Slot] = {}
        self.private: list[tuple[int, int]] = []
        """Disjoint ranges [first, end), ascending."""

    def check(self, number: int, wanted: Slot, *, protected: bool, spaces: int) -> None:
        """Raise Rejected unless slot `number` may become `wanted` (size 0 deletes it).

        EINVAL for unaligned, wrapping or unknown things and for changes KVM does not allow, EEXIST for an overlap.
        """
        allowed = c.MEM_LOG_DIRTY_PAGES | c.MEM_GUEST_MEMFD | (0 if protected else c.MEM_READONLY)
        if wanted.flags & c.MEM_GUEST_MEMFD:
            allowed &= ~c.MEM_LOG_DIRTY_PAGES
        problem = ""
        if wanted.flags & ~allowed:
            problem = f"flags {wanted.flags:#x} are not allowed here"
        elif not c.page_aligned(wanted.gpa, wanted.size, wanted.userspace_addr, wanted.memfd_offset):
            problem = "address, size and offset must be multiples of the page size"
        elif number >> 16 >= spaces or number & 0xFFFF >= c.USER_MEM_SLOTS:
            problem = f"there is no slot {number:#x}"
        elif wanted.end > _TOP or wanted.userspace_addr + wanted.size > 1 << 47:
            problem = "the range wraps or leaves user space"
        old = self.slots.get(number)
        if not problem and not wanted.size and old is None:
            problem = f"slot {number} does not exist, so it cannot be deleted"
        if not problem and wanted.size and old is not None:
            problem = self._change(old, wanted)
        if problem:
            raise Rejected(errno.EINVAL, f"memory slot {number}: {problem}")
        for other, slot in self.slots.items():
            if other != number and other >> 16 == number >> 16 and slot.gpa < wanted.end and wanted.gpa < slot.end:
                raise Rejected(errno.EEXIST, f"memory slot {number} overlaps slot {other} at {slot.gpa:#x}")

    @staticmethod
    def _change(old: Slot, wanted: Slot) -> str:
        if old.flags & c.MEM_GUEST_MEMFD or wanted.flags & c.MEM_GUEST_MEMFD:
            return "" if old == wanted else "a slot with a guest_memfd can only be deleted"
        if old.size != wanted.size or old.userspace_addr != wanted.userspace_addr:
            return "size and user address of a slot cannot change"
        return ""

    def set(self, number: int, wanted: Slot) -> None:
        """Create, move or (size 0) delete a slot that `check` has passed."""
        if wanted.size:
            self.slots[number] = wanted
        else:
            self.slots.pop(number, None)

    def set_private(self, first: int, end: int, *, private: bool) -> None:
        """Mark the addresses [first, end) private or shared."""
        kept = []
        for start, stop in self.private:
            if start < first:
                kept.append((start, min(stop, first)))
            if stop > end:
                kept.append((max(start, end), stop))
        if private:
            kept.append((first, end))
        kept.sort()
        merged: list[tuple[int, int]] = []
        for start, stop in kept:
            if merged and merged[-1][1] >= start:
                merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
            else:
                merged.append((start, stop))
        self.private = merged

    def populatable(self, first: int, end: int) -> int:
        """Return how far [first, end) is private memory in slots with a guest_memfd: the first address that is not."""
        reached = first
        while reached < end:
            backed = [s.end for s in self.slots.values() if s.flags & c.MEM_GUEST_MEMFD and s.gpa <= reached < s.end]
            private = [stop for start, stop in self.private if start <= reached < stop]
            if not backed or not private:
                break
            reached = min(end, backed[0], private[0])
        return reached
