"""How a field's value is said to people: text as text, sizes with their unit, the rest in hexadecimal."""

from __future__ import annotations

from collections.abc import Callable

_TEXT = ("cpu_vendorid_", "cpu_brandid_", "tdx_vendorid_")
_DECIMAL = ("_bits", "_mhz", "_shift", "_count", "_nr")

_MEANING: dict[str, Callable[[int], str]] = {
    # SDM, CPUID: leaf 1 counts in quadwords, leaf 4 counts from 1, leaf 0x15 is in Hz.
    "clflush_size": lambda value: f"{value * 8} bytes",
    "cache_linesize": lambda value: f"{value + 1} bytes",
    "cache_nsets": lambda value: f"{value + 1} sets",
    "cache_nways": lambda value: f"{value + 1} ways",
    "cpu_crystal_hz": lambda value: f"{value / 1_000_000:g} MHz",
}


def bits(low: int, high: int) -> str:
    """Say which bits of a register: ``5``, or ``31:16``."""
    return f"{low}" if low == high else f"{high}:{low}"


def say(name: str, width: int, value: int) -> str:
    """Say the value of a field, given its name in the table of fields and its width in bits."""
    if width == 1:
        return f"{value}"
    if name.startswith(_TEXT) and value:
        return repr(value.to_bytes(4, "little").decode("latin-1"))
    if name in _MEANING and value:
        return _MEANING[name](value)
    return f"{value}" if name.endswith(_DECIMAL) else f"{value:#x}"


def signature(eax: int) -> str:
    """Say leaf 1 EAX: family, model and stepping as the SDM composes them."""
    family, model = eax >> 8 & 0xF, eax >> 4 & 0xF
    if family in (0x6, 0xF):
        model |= eax >> 12 & 0xF0
    if family == 0xF:
        family += eax >> 20 & 0xFF
    return f"family {family:#x}, model {model:#x}, stepping {eax & 0xF:#x}"
