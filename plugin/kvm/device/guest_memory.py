"""A VM's memory slots and which guest physical addresses are private.

Only the bookkeeping: where memory is and whether a guest_memfd backs it. The rules are
kvm_set_memory_region's and kvm_vm_set_mem_attributes' (virt/kvm/kvm_main.c).
"""

from __future__ import annotations

import errno
from array import array
from bisect import bisect_left, bisect_right

from plugin.kvm.contract import Rejected
from plugin.kvm.uapi import constants as c
from plugin.typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOP = 1 << 64
_MOST_PAGES = (1 << 31) - 1  # KVM_MEM_MAX_NR_PAGES: the kernel numbers a slot's pages with 32 bits


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


class Ranges:
    """A set of 64-bit addresses as disjoint ranges: the time of each call grows with the logarithm of their number."""

    __slots__ = ("_edges",)

    def __init__(self) -> None:
        self._edges = array("Q")  # where ranges begin and end, in turn, ascending

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Every range [first, end), ascending."""
        return zip(self._edges[::2], self._edges[1::2], strict=True)

    def put(self, first: int, end: int, *, inside: bool) -> None:
        """Take the addresses [first, end) in, or out."""
        left, right = bisect_left(self._edges, first), bisect_right(self._edges, end)
        # An edge is needed where the neighbour is different: an odd number of edges before it is inside a range.
        edges = [first] if left % 2 != inside else []
        edges += [end] if right % 2 != inside else []
        self._edges[left:right] = array("Q", edges)

    def end_around(self, address: int) -> int | None:
        """Return the end of the range that has `address`, None if none has."""
        at = bisect_right(self._edges, address)
        return self._edges[at] if at % 2 else None


class GuestMemory:
    """The slots of one VM by id (address space in bits 31:16), and its private ranges."""

    __slots__ = ("_places", "_top", "private", "slots")

    def __init__(self, address_width: int = 52) -> None:
        """Have none; `address_width` is the processor's for physical addresses, in bits."""
        self._top = 1 << address_width
        self.slots: dict[int, Slot] = {}
        self._places: dict[int, list[tuple[int, int]]] = {}  # per address space: (gpa, id) of each slot, ascending
        self.private = Ranges()

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
        elif wanted.size // c.PAGE_SIZE > _MOST_PAGES:
            problem = f"at most {_MOST_PAGES:#x} pages"
        old = self.slots.get(number)
        if not problem and not wanted.size and old is None:
            problem = f"slot {number} does not exist, so it cannot be deleted"
        if not problem and wanted.size and old is not None:
            problem = self._change(old, wanted)
        if problem:
            raise Rejected(errno.EINVAL, f"memory slot {number}: {problem}")
        if not wanted.size:
            return
        self._check_place(number, wanted)

    def _check_place(self, number: int, wanted: Slot) -> None:
        places = self._places.get(number >> 16, [])
        at = bisect_left(places, (wanted.gpa, number))
        # The nearest on either side, one of which may be the slot itself.
        for _, other in places[max(at - 2, 0) : at + 2]:
            slot = self.slots[other]
            if other != number and slot.gpa < wanted.end and wanted.gpa < slot.end:
                raise Rejected(errno.EEXIST, f"memory slot {number} overlaps slot {other} at {slot.gpa:#x}")
        if wanted.end > self._top:  # kvm_arch_prepare_memory_region
            raise Rejected(errno.EINVAL, f"memory slot {number}: physical addresses end at {self._top:#x}")

    @staticmethod
    def _change(old: Slot, wanted: Slot) -> str:
        if old.flags & c.MEM_GUEST_MEMFD or wanted.flags & c.MEM_GUEST_MEMFD:
            return "" if old == wanted else "a slot with a guest_memfd can only be deleted"
        if old.size != wanted.size or old.userspace_addr != wanted.userspace_addr:
            return "size and user address of a slot cannot change"
        return ""

    def set(self, number: int, wanted: Slot) -> None:
        """Create, move or (size 0) delete a slot that `check` has passed."""
        places = self._places.setdefault(number >> 16, [])
        old = self.slots.pop(number, None)
        if old is not None:
            del places[bisect_left(places, (old.gpa, number))]
        if wanted.size:
            self.slots[number] = wanted
            places.insert(bisect_left(places, (wanted.gpa, number)), (wanted.gpa, number))

    def set_private(self, first: int, end: int, *, private: bool) -> None:
        """Mark the addresses [first, end) private or shared."""
        self.private.put(first, end, inside=private)

    def populatable(self, first: int, end: int) -> int:
        """Return how far [first, end) is private memory in slots with a guest_memfd: the first address that is not.

        In the first address space, as a TD has no other.
        """
        places = self._places.get(0, [])
        reached = first
        while reached < end:
            at = bisect_left(places, (reached + 1, 0)) - 1
            slot = self.slots[places[at][1]] if at >= 0 else None
            private = self.private.end_around(reached)
            if slot is None or slot.end <= reached or not slot.flags & c.MEM_GUEST_MEMFD or private is None:
                break
            reached = min(end, slot.end, private)
        return reached
