"""Leaves as data: in QMP messages, in the simulated KVM's record, and in reports."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from plugin.cpuid import Cpuid, Leaf, Registers


class Entry(msgspec.Struct, omit_defaults=True):
    """One leaf (``TdxCpuidEntry`` in QMP), 32 bits each. ``subleaf`` is absent where the instruction ignores ECX."""

    leaf: int
    eax: int
    ebx: int
    ecx: int
    edx: int
    subleaf: int | None = None


class GuestEntry(msgspec.Struct, omit_defaults=True):
    """One leaf as the code in the guest that executes CPUID finds it in the end, 32 bits each.

    The registers are absent where the VMM answers, and with what is not known.
    """

    leaf: int
    eax: int | None = None
    ebx: int | None = None
    ecx: int | None = None
    edx: int | None = None
    subleaf: int | None = None
    ve: str = ""
    """CPUID raised #VE, and this is who answered it: ``vmm``, or ``guest-zeros``, the guest's own handler."""


def to_cpuid(entries: Iterable[Entry]) -> dict[Leaf, Registers]:
    """Turn entries into the project's vocabulary."""
    return {Leaf(e.leaf, e.subleaf): Registers(e.eax, e.ebx, e.ecx, e.edx) for e in entries}


def to_entries(cpuid: Cpuid) -> list[Entry]:
    """Turn leaves into entries, in the order of the leaves."""
    return [
        Entry(leaf.number, *registers, subleaf=leaf.subleaf)
        for leaf, registers in sorted(cpuid.items(), key=lambda item: item[0].order)
    ]
