"""KVM_GET_SUPPORTED_CPUID and KVM_GET_EMULATED_CPUID for a platform (arch/x86/kvm/cpuid.c).

What KVM passes on, masks and adds is data (`data/supported_cpuid.json`); what it computes is here: leaf 0xA
from the PMU, leaf 0xD from the states it supports, leaf 0x24's version, and the widths in 0x80000008.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache

from plugin.cpuid.leaf import REGISTERS, ZERO, Leaf, Registers
from plugin.kvm.policy import FOUR_LEVEL_WIDTH, WIDTH_LEAF, with_guest_width
from plugin.kvm.uapi.constants import CPUID_FLAG_SIGNIFCANT_INDEX
from plugin.kvm.uapi.cpuid import Entry
from plugin.tdx_module import Platform
from plugin.tdx_module.json_file import read_json
from plugin.typing import Any

SUPPORTED_XCR0 = 0x602E7 | 0b11 << 3
"""KVM_SUPPORTED_XCR0 (x86.c): x87, SSE, AVX, MPX, AVX-512, PKRU, AMX. AMX counts as permitted for the process."""

SUPPORTED_XSS = 0b11 << 11
"""KVM_SUPPORTED_XSS (x86.c): CET's user and supervisor state."""

# cpuid_function_is_indexed: the entry's index counts
_INDEXED = frozenset((0x4, 0x7, 0xB, 0xD, 0xF, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1D, 0x1E, 0x1F, 0x24, 0x8000001D))
_RANGES = (0x0, 0x80000000, 0x40000000)  # the Centaur range is left out on an Intel host
_XSAVE_HEADER = 512 + 64
_MAX_GP_COUNTERS, _MAX_FIXED_COUNTERS, _PMU_VERSION = 8, 3, 2
_MOVBE, _RDPID = 1 << 22, 1 << 22
_VERSION = 0xFF  # leaf 0x24 EBX


@lru_cache(maxsize=1)
def _rules() -> dict[Leaf, dict[str, Any]]:
    path = os.path.join(os.path.dirname(__file__), "data", "supported_cpuid.json")
    return {Leaf.parse(row["leaf"]): row for row in read_json(path)["leaves"]}


def _apply(row: dict[str, Any], native: Registers) -> Registers:
    """Pass, mask, limit and set registers as one row of the data says; a register it does not name is 0."""
    passed, masks, limits, added = (row.get(key, {}) for key in ("pass", "mask", "limit", "set"))
    values = []
    for name, have in zip(REGISTERS, native, strict=True):
        kept = have if name in passed else have & int(masks.get(name, "0"), 16)
        if name in limits:
            kept = min(kept, int(limits[name], 16))
        values.append(kept | int(added.get(name, "0"), 16))
    return Registers(*values)


class SupportedCpuid:
    """What KVM can give a guest on one platform."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        states = platform.native_leaf(Leaf(0xD, 0))
        self.xcr0 = (states.eax | states.edx << 32) & SUPPORTED_XCR0
        states = platform.native_leaf(Leaf(0xD, 1))
        self.xss = (states.ecx | states.edx << 32) & SUPPORTED_XSS
        self.xsave_size = max(4096, self._area(self.xcr0, compacted=False))
        """Bytes that KVM_GET_XSAVE2 writes: at least struct kvm_xsave."""
        self.entries: tuple[Entry, ...] = tuple(self._all())

    def _native(self, number: int, subleaf: int) -> Registers:
        return self.platform.native_leaf(Leaf(number, subleaf if number in _INDEXED else None))

    def _area(self, states: int, *, compacted: bool) -> int:
        """Size in bytes of an XSAVE area for these state components (xstate_required_size)."""
        size = _XSAVE_HEADER
        for position in range(2, 63):
            if states >> position & 1:
                component = self._native(0xD, position)
                aligned = (size + 63) & ~63 if component.ecx & 0b10 else size
                size = max(size, (aligned if compacted else component.ebx) + component.eax)
        return size

    def _all(self) -> Iterator[Entry]:
        for first in _RANGES:
            last = first
            number = first
            while number <= last:
                for entry in self._function(number):
                    if number == first:
                        last = entry.registers.eax
                    yield entry
                number += 1

    def _function(self, number: int) -> Iterator[Entry]:
        flags = CPUID_FLAG_SIGNIFCANT_INDEX if number in _INDEXED else 0
        for subleaf, registers in self._subleaves(number):
            yield Entry(number, subleaf, flags, registers)

    def _subleaves(self, number: int) -> Iterator[tuple[int, Registers]]:
        if number == 0xD:
            yield from self._state_components()
            return
        first = self._one(number, 0)
        yield 0, first
        row = _rules().get(Leaf(number, 0)) or _rules().get(Leaf(number)) or {}
        more = row.get("subleaves", {})
        if "last" in more:
            for subleaf in range(1, first.get(more["last"]) + 1):
                yield subleaf, self._one(number, subleaf)
        elif "while" in more:
            ((register, mask),) = more["while"].items()
            subleaf, seen = 0, first
            while seen.get(register) & int(mask, 16):
                subleaf += 1
                seen = self._one(number, subleaf)
                yield subleaf, seen

    def _one(self, number: int, subleaf: int) -> Registers:
        native = self._native(number, subleaf)
        if number == 0xA:
            return self._pmu(native)
        row = _rules().get(Leaf(number, subleaf))
        if row is None:
            row = _rules().get(Leaf(number))
        if row is None:
            return ZERO
        value = _apply(row, native)
        if number == 0x24:
            value = value.with_("ebx", value.ebx | min(native.ebx & _VERSION, 1)) if self._has_avx10() else ZERO
        elif number == WIDTH_LEAF.number:
            physical = native.eax & 0xFF
            virtual = max(native.eax >> 8 & 0xFF, 48)
            guest = physical if self.five_level_ept else min(physical, FOUR_LEVEL_WIDTH)
            value = with_guest_width(value.with_("eax", physical | virtual << 8), guest)
        return value

    @property
    def five_level_ept(self) -> bool:
        """Whether the platform walks five EPT levels: taken from LA57, CPUID.7.0:ECX[16]."""
        return bool(self._native(0x7, 0).ecx >> 16 & 1)

    def _has_avx10(self) -> bool:
        return bool(self._native(0x7, 1).edx >> 19 & 1)

    @staticmethod
    def _pmu(native: Registers) -> Registers:
        version = min(native.eax & 0xFF, _PMU_VERSION)
        if not version:
            return ZERO
        counters = min(native.eax >> 8 & 0xFF, _MAX_GP_COUNTERS)
        fixed = min(native.edx & 0x1F, _MAX_FIXED_COUNTERS)
        any_thread_deprecated = 1 << 15
        return Registers(
            version | counters << 8 | native.eax & 0xFFFF0000,
            native.ebx,
            0,
            fixed | native.edx & 0x1FE0 | any_thread_deprecated,
        )

    def _state_components(self) -> Iterator[tuple[int, Registers]]:
        native = self._native(0xD, 0)
        size = self._area(self.xcr0, compacted=False)
        yield 0, Registers(native.eax & self.xcr0, size, size, native.edx & self.xcr0 >> 32)
        native = self._native(0xD, 1)
        features = _apply(_rules()[Leaf(0xD, 1)], native).eax
        compacted = self._area(self.xcr0 | self.xss, compacted=True) if features & 0b1010 else 0
        yield 1, Registers(features, compacted, native.ecx & self.xss, native.edx & self.xss >> 32)
        for position in range(2, 63):
            if (self.xcr0 | self.xss) >> position & 1:
                yield position, self._native(0xD, position)._replace(edx=0)

    def emulated(self, room: int) -> tuple[Entry, ...] | None:
        """Return KVM_GET_EMULATED_CPUID's entries, None if there is no room for them (cpuid_func_emulated).

        The kernel looks for a free entry before each range too, so room for one entry more is needed.
        """
        entries = (
            Entry(0x0, 0, 0, Registers(eax=7)),
            Entry(0x1, 0, 0, Registers(ecx=_MOVBE)),
            Entry(0x7, 0, CPUID_FLAG_SIGNIFCANT_INDEX, Registers(ecx=_RDPID)),
        )
        return entries if room > len(entries) else None
