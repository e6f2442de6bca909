"""A processor the module runs on: its native CPUID as data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from plugin.cpuid import ZERO, Leaf, Registers

_TOPOLOGY = (0xB, 0x1F)


class Platform:
    """A processor's native CPUID, as logical CPU 0 sees it in 64-bit mode."""

    def __init__(
        self,
        name: str,
        description: str,
        native: Mapping[Leaf, Registers],
        *,
        tsx_ctrl: bool,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.description = description
        self.native = native
        self.tsx_ctrl = tsx_ctrl
        """Whether the MSR IA32_TSX_CTRL exists (IA32_ARCH_CAPABILITIES[7]); CPUID does not tell."""
        self.notes = notes
        self.maximum_leaf = native[Leaf(0)].eax
        self.maximum_extended_leaf = native[Leaf(0x80000000)].eax

    def __repr__(self) -> str:
        return f"<Platform {self.name}>"

    def native_leaf(self, leaf: Leaf) -> Registers:
        """Return the processor's values, all zero above the maximum basic or extended leaf.

        An unrecorded sub-leaf of the topology leaves echoes its number in ECX[7:0], as the SDM has it.
        """
        number, subleaf = leaf
        if number > (self.maximum_extended_leaf if number >> 31 else self.maximum_leaf):
            return ZERO
        found = self.native.get(leaf)
        if found is None:
            # Module tables and records do not always agree on whether a leaf has sub-leaves.
            found = self.native.get(Leaf(number, 0) if subleaf is None else Leaf(number))
        if found is None:
            return Registers(ecx=subleaf & 0xFF) if subleaf and number in _TOPOLOGY else ZERO
        return found

    def execute(self, number: int, subleaf: int) -> Registers:
        """Return what the CPUID instruction answers outside a TD.

        Above the maximum basic or extended leaf an Intel processor answers as for its highest basic leaf (SDM, CPUID).
        """
        extended = 0x80000000 <= number <= self.maximum_extended_leaf
        if not extended and number > self.maximum_leaf:
            number = self.maximum_leaf
        return self.native_leaf(Leaf(number, subleaf))

    @cached_property
    def tsc_khz(self) -> int:
        """TSC frequency in kHz: leaf 0x15 (crystal clock times ratio), else the base frequency in leaf 0x16."""
        ratio = self.native_leaf(Leaf(0x15))
        if ratio.eax and ratio.ebx and ratio.ecx:
            return ratio.ecx * ratio.ebx // ratio.eax // 1000
        return (self.native_leaf(Leaf(0x16)).eax & 0xFFFF) * 1000

    @cached_property
    def state_components(self) -> int:
        """XCR0 | IA32_XSS bits that the processor supports, from leaf 0xD."""
        return self.native_leaf(Leaf(0xD, 0)).eax | self.native_leaf(Leaf(0xD, 1)).ecx
