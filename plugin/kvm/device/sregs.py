"""Which control registers KVM_SET_SREGS takes, by the vCPU's CPUID. Pure.

The rules are kvm_is_valid_sregs' and kvm_apic_set_base's (arch/x86/kvm).
"""

from __future__ import annotations

from collections.abc import Iterable

from plugin.cpuid.leaf import Leaf, Registers
from plugin.kvm.uapi.cpuid import Entry
from plugin.kvm.uapi.registers import SREGS

_LOOKED_AT = ("cr0", "cr4", "efer", "apic_base")
_CR0_PE, _CR0_NW, _CR0_CD, _CR0_PG = 1 << 0, 1 << 29, 1 << 30, 1 << 31
_CR4_PAE, CR4_OSXSAVE, CR4_PKE = 1 << 5, 1 << 18, 1 << 22
_CR4_ALWAYS = 0x7FF  # VME to OSXMMEXCPT
_EFER_SCE, _EFER_LME, _EFER_LMA = 1 << 0, 1 << 8, 1 << 10
_APIC_RESERVED, _X2APIC, _APIC_ENABLED = 0x2FF, 1 << 10, 1 << 11

Bit = tuple[Leaf, str, int]
_CR4: tuple[tuple[int, tuple[Bit, ...]], ...] = (
    (1 << 11, ((Leaf(7, 0), "ecx", 2),)),  # UMIP
    (1 << 12, ((Leaf(7, 0), "ecx", 16),)),  # LA57
    (1 << 13, ((Leaf(1), "ecx", 5),)),  # VMXE
    (1 << 16, ((Leaf(7, 0), "ebx", 0),)),  # FSGSBASE
    (1 << 17, ((Leaf(1), "ecx", 17),)),  # PCIDE
    (CR4_OSXSAVE, ((Leaf(1), "ecx", 26),)),
    (1 << 20, ((Leaf(7, 0), "ebx", 7),)),  # SMEP
    (1 << 21, ((Leaf(7, 0), "ebx", 20),)),  # SMAP
    (CR4_PKE, ((Leaf(7, 0), "ecx", 3),)),
    (1 << 23, ((Leaf(7, 0), "ecx", 7), (Leaf(7, 0), "edx", 20))),  # CET: SHSTK or IBT
    (1 << 28, ((Leaf(7, 1), "eax", 26),)),  # LAM_SUP
)
_EFER: tuple[tuple[int, tuple[Bit, ...]], ...] = (
    (_EFER_LME | _EFER_LMA, ((Leaf(0x80000001), "edx", 29),)),
    (1 << 11, ((Leaf(0x80000001), "edx", 20),)),  # NX
    (1 << 12, ((Leaf(0x80000001), "ecx", 2),)),  # SVME
    (1 << 14, ((Leaf(0x80000001), "edx", 25),)),  # FFXSR
    (1 << 21, ((Leaf(0x80000021), "eax", 8),)),  # AUTOIBRS
)


class Sregs:
    """The control registers in a struct kvm_sregs, or in a struct kvm_sregs2, which begins alike."""

    __slots__ = ("_long_code", "apic_base", "cr0", "cr4", "efer")

    def __init__(self, state: bytes) -> None:
        registers = dict(zip(SREGS.fields, SREGS.unpack(state), strict=True))
        self.cr0, self.cr4, self.efer, self.apic_base = (registers[name] for name in _LOOKED_AT)
        self._long_code = bool(registers["cs.l"])

    def refused(self, cpuid: Iterable[Entry], supported: Iterable[Entry]) -> str:
        """Say what is wrong for a vCPU with that CPUID, of which only what KVM supports counts; empty if nothing is."""
        guest, kvm = _by_leaf(cpuid), _by_leaf(supported)

        def has(bit: Bit) -> bool:
            leaf, register, position = bit
            return all(getattr(known.get(leaf, _NONE), register) >> position & 1 for known in (guest, kvm))

        def allowed(always: int, table: tuple[tuple[int, tuple[Bit, ...]], ...]) -> int:
            return always | sum(bits for bits, needs in table if any(map(has, needs)))

        if wrong := self.cr4 & ~allowed(_CR4_ALWAYS, _CR4):
            return f"CR4 {wrong:#x} is reserved for this vCPU"
        if wrong := self.efer & ~allowed(_EFER_SCE, _EFER):
            return f"EFER {wrong:#x} is reserved for this vCPU"
        if self.cr0 >> 32 or (self.cr0 & _CR0_NW and not self.cr0 & _CR0_CD):
            return f"CR0 {self.cr0:#x}: bits 63:32 are reserved, and NW needs CD"
        if self.cr0 & _CR0_PG and not self.cr0 & _CR0_PE:
            return f"CR0 {self.cr0:#x}: PG needs PE"
        if self.efer & _EFER_LME and self.cr0 & _CR0_PG:
            if not self.cr4 & _CR4_PAE or not self.efer & _EFER_LMA:
                return "64-bit mode (EFER.LME and CR0.PG) needs CR4.PAE and EFER.LMA"
        elif self.efer & _EFER_LMA or self._long_code:
            return "EFER.LMA or a 64-bit code segment outside 64-bit mode"
        width = guest.get(Leaf(0x80000008), _NONE).eax & 0xFF or 36
        mode = self.apic_base & (_X2APIC | _APIC_ENABLED)
        if self.apic_base & _APIC_RESERVED or self.apic_base >> width or mode == _X2APIC:
            return f"APIC base {self.apic_base:#x} has reserved bits, or x2APIC mode without the APIC"
        if self.apic_base & _X2APIC and not has((Leaf(1), "ecx", 21)):
            return f"APIC base {self.apic_base:#x}: this vCPU has no x2APIC"
        return ""


_NONE = Registers(0, 0, 0, 0)


def _by_leaf(entries: Iterable[Entry]) -> dict[Leaf, Registers]:
    return {entry.leaf: entry.registers for entry in entries}


def followed(entries: Iterable[Entry], state: bytes) -> tuple[Entry, ...]:
    """The vCPU's CPUID with the bits that follow CR4: OSXSAVE and OSPKE (kvm_update_cpuid_runtime)."""
    cr4 = Sregs(state).cr4
    follow = {Leaf(1): (27, cr4 & CR4_OSXSAVE), Leaf(7, 0): (4, cr4 & CR4_PKE)}
    found = []
    for entry in entries:
        if entry.leaf in follow:
            position, on = follow[entry.leaf]
            ecx = entry.registers.ecx & ~(1 << position) | bool(on) << position
            found.append(entry._replace(registers=entry.registers._replace(ecx=ecx)))
        else:
            found.append(entry)
    return tuple(found)
