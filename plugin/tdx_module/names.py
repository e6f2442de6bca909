"""Names of ATTRIBUTES, XFAM and FEATURE_PARAVIRT_CTRL bits, and which XFAM bits need which.

From the TDX module ABI and the SDM, volume 1 chapter 13.
"""

from __future__ import annotations

from collections.abc import Mapping

ATTRIBUTES: Mapping[int, str] = {
    0: "DEBUG",
    6: "PMT_PROF",
    16: "ICSSD",
    27: "LASS",
    28: "SEPT_VE_DISABLE",
    29: "MIGRATABLE",
    30: "PKS",
    31: "KL",
    62: "TPA",
    63: "PERFMON",
}

XFAM: Mapping[int, str] = {
    0: "X87",
    1: "SSE",
    2: "AVX",
    5: "AVX512_OPMASK",
    6: "AVX512_ZMM_HI256",
    7: "AVX512_HI16_ZMM",
    8: "PT",
    9: "PKRU",
    11: "CET_U",
    12: "CET_S",
    14: "ULI",
    15: "LBR",
    17: "AMX_TILECFG",
    18: "AMX_TILEDATA",
}

FEATURE_PARAVIRT_CTRL = (
    "core-capabilities",
    "dca",
    "est",
    "mca",
    "mtrr",
    "pconfig",
    "rdt-a",
    "rdt-m",
    "acpi",
    "tm2",
    "tme",
    "tsc-deadline",
)
"""TDCS.FEATURE_PARAVIRT_CTRL from bit 0 on: features that a guest with TD_CTLS.REDUCE_VE can have back."""

DEBUG = 1 << 0
LASS = 1 << 27
MIGRATABLE = 1 << 29
PKS = 1 << 30
PERFMON = 1 << 63

USER_STATE = 0x6_02E7
"""XFAM bits that belong to XCR0; the others belong to IA32_XSS."""

_AVX512 = 0xE0
_CET = 0x1800
_AMX = 0x6_0000


def attribute_names(attributes: int) -> tuple[str, ...]:
    """Name the set bits of ATTRIBUTES, lowest first; a bit without a name is ``bit N``."""
    return _names(attributes, ATTRIBUTES)


def xfam_names(xfam: int) -> tuple[str, ...]:
    """Name the set bits of XFAM, lowest first; a bit without a name is ``bit N``."""
    return _names(xfam, XFAM)


def attribute_bit(name: str) -> int:
    """Return the position of a named ATTRIBUTES bit, in any case. Raises KeyError."""
    return next(position for position, known in ATTRIBUTES.items() if known == name.upper())


def _names(value: int, names: Mapping[int, str]) -> tuple[str, ...]:
    return tuple(names.get(n, f"bit {n}") for n in range(value.bit_length()) if value >> n & 1)


def explain_xfam(xfam: int) -> list[str]:
    """Say in one sentence each why no TD can have this XFAM; empty when its bits agree with each other.

    Whether module and processor support the bits is another question.
    """
    reasons = []
    if xfam & 0x3 != 0x3:
        reasons.append("XFAM[1:0] (x87 and SSE) must be set in every TD")
    if xfam & _AVX512 not in (0, _AVX512):
        reasons.append("XFAM[7:5] (AVX-512) must be set or cleared together")
    if xfam & _AVX512 and not xfam & 0x4:
        reasons.append("XFAM[7:5] (AVX-512) needs XFAM[2] (AVX)")
    if xfam & _CET not in (0, _CET):
        reasons.append("XFAM[12:11] (CET user and supervisor) must be set or cleared together")
    if xfam & _AMX not in (0, _AMX):
        reasons.append("XFAM[18:17] (AMX tile configuration and data) must be set or cleared together")
    return reasons


def explain_attributes(attributes: int) -> list[str]:
    """Say why ATTRIBUTES bits contradict each other; empty when they agree."""
    if not attributes & MIGRATABLE:
        return []
    return [
        f"a migratable TD cannot have {name}"
        for bit, name in ((DEBUG, "DEBUG"), (PERFMON, "PERFMON"))
        if attributes & bit
    ]
