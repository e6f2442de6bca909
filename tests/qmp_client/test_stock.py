"""What a stock QEMU lets see, without the simulation's record: as on hardware. And its warnings."""

from __future__ import annotations

from plugin.cpuid import Leaf, Registers
from qmp_client.entries import to_cpuid
from qmp_client.negotiation.stock import ON_HARDWARE, UNCHECKED, Seen, put_together, warnings

FEATURES = Leaf(7, 0)
WARNINGS = [
    "qemu-system-x86_64: warning: TDX forcibly sets the feature: CPUID[eax=07h,ecx=00h].EBX.bmi1 [bit 3]",
    "qemu-system-x86_64: warning: TDX doesn't support requested feature: CPUID[eax=07h,ecx=00h].EBX.mpx [bit 14]",
    "qemu-system-x86_64: warning: TDX doesn't support requested feature: CPUID[eax=01h].ECX [bit 6]",
    "qemu-system-x86_64: warning: host doesn't support requested feature: CPUID[eax=07h,ecx=00h].EBX.hle [bit 4]",
]


def test_warnings() -> None:
    warned = warnings(WARNINGS)
    assert warned.forced_on == {FEATURES: Registers(ebx=1 << 3)}
    assert warned.unsupported == {FEATURES: Registers(ebx=1 << 14), Leaf(1): Registers(ecx=1 << 6)}


def test_hardware_shows_feature_words_only() -> None:
    has, filtered = Registers(ebx=0b1001), Registers(ebx=1 << 14 | 1 << 4)
    seen = Seen("11.1.3", 1, {FEATURES: has}, {FEATURES: filtered})
    known = put_together(seen, warnings(WARNINGS), None, None)
    assert known.actual == {FEATURES: has}
    assert to_cpuid(known.requested.dropped) == {FEATURES: Registers(ebx=1 << 4)}, "QEMU's own doing, not TDX's"
    assert to_cpuid(known.requested.cpuid) == {FEATURES: Registers(ebx=1 | 1 << 14)}, (
        "what TDX forced was not asked for"
    )
    assert known.caveats == ON_HARDWARE


def test_silence_is_no_proof() -> None:
    seen = Seen("11.1.3", 1, {FEATURES: Registers(ebx=1)}, {})
    assert UNCHECKED in put_together(seen, warnings([]), None, None).caveats
