"""Sizes of the XSAVE area (SDM volume 1, 13.4), from the native sub-leaves of leaf 0xD."""

from __future__ import annotations

from plugin.cpuid import Leaf
from plugin.tdx_module.names import USER_STATE
from plugin.tdx_module.platform import Platform

LEGACY_SIZE = 576
"""Bytes of the legacy region and the XSAVE header, present whatever is enabled."""

LAST_COMPONENT = 18


def standard_size(platform: Platform, components: int) -> int:
    """Bytes of a standard-format area for the user components in a bit map (XCR0 layout)."""
    size = LEGACY_SIZE
    for n in range(2, LAST_COMPONENT + 1):
        if (components & USER_STATE) >> n & 1:
            native = platform.native_leaf(Leaf(0xD, n))
            size = max(size, native.ebx + native.eax)
    return size


def compacted_size(platform: Platform, components: int) -> int:
    """Bytes of a compacted area for user and supervisor components (XCR0 | IA32_XSS layout)."""
    size = LEGACY_SIZE
    for n in range(2, LAST_COMPONENT + 1):
        if components >> n & 1:
            native = platform.native_leaf(Leaf(0xD, n))
            if native.ecx & 0x2:
                size = size + 63 & ~63
            size += native.eax
    return size


def disable_support(platform: Platform) -> int:
    """Components whose first use can fault (XFD), as a bit map; 0 on a processor without XFD."""
    if not platform.native_leaf(Leaf(0xD, 1)).eax & 0x10:
        return 0
    return sum(1 << n for n in range(2, LAST_COMPONENT + 1) if platform.native_leaf(Leaf(0xD, n)).ecx & 0x4)
