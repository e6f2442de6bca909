"""Lists of kvm_cpuid_entry2 in the project's own terms."""

from __future__ import annotations

from collections.abc import Iterable

from plugin.cpuid.leaf import Leaf, Registers
from plugin.kvm.uapi.constants import CPUID_FLAG_SIGNIFCANT_INDEX
from plugin.kvm.uapi.structs import CPUID_ENTRY2
from plugin.typing import NamedTuple


class Entry(NamedTuple):
    """One struct kvm_cpuid_entry2, without its padding. `subleaf` (its "index") counts only if `flags` has bit 0."""

    function: int
    subleaf: int
    flags: int
    registers: Registers

    @property
    def leaf(self) -> Leaf:
        """The leaf; it has a sub-leaf exactly when KVM_CPUID_FLAG_SIGNIFCANT_INDEX is set."""
        return Leaf(self.function, self.subleaf if self.flags & CPUID_FLAG_SIGNIFCANT_INDEX else None)

    def pack(self) -> bytes:
        """Return the 40 bytes of the structure."""
        return CPUID_ENTRY2.pack(self.function, self.subleaf, self.flags, *self.registers, b"")

    def as_json(self) -> dict[str, int]:
        """Return leaf, subleaf (only where it counts) and the four registers, as the QMP commands spell them."""
        return leaf_as_json(self.leaf, self.registers)


def leaf_as_json(leaf: Leaf, registers: Registers) -> dict[str, int]:
    """Return one leaf's values as a JSON object."""
    names = {"leaf": leaf.number} if leaf.subleaf is None else {"leaf": leaf.number, "subleaf": leaf.subleaf}
    return names | registers._asdict()


def entry(leaf: Leaf, registers: Registers) -> Entry:
    """Return the entry of a leaf, its index significant exactly if the leaf has a sub-leaf."""
    if leaf.subleaf is None:
        return Entry(leaf.number, 0, 0, registers)
    return Entry(leaf.number, leaf.subleaf, CPUID_FLAG_SIGNIFCANT_INDEX, registers)


def pack(entries: Iterable[Entry]) -> bytes:
    """Return the array of structures."""
    return b"".join(one.pack() for one in entries)


def unpack(data: bytes) -> list[Entry]:
    """Read an array of structures; `data` is a multiple of 40 bytes long."""
    entries = []
    for at in range(0, len(data), CPUID_ENTRY2.size):
        function, index, flags, eax, ebx, ecx, edx, _ = CPUID_ENTRY2.unpack(data, at)
        entries.append(Entry(function, index, flags, Registers(eax, ebx, ecx, edx)))
    return entries
