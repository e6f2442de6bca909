"""Values said to people."""

from __future__ import annotations

import pytest

from plugin.cpuid.values import say, signature


@pytest.mark.parametrize(
    ("name", "width", "value", "said"),
    [
        ("smep", 1, 1, "1"),
        ("tdx_vendorid_0", 32, 0x65746E49, "'Inte'"),
        ("cpu_brandid_3", 32, 0x00202020, r"'   \x00'"),
        ("phys_addr_bits", 8, 52, "52"),
        ("clflush_size", 8, 8, "64 bytes"),
        ("cache_linesize", 12, 63, "64 bytes"),
        ("cpu_crystal_hz", 32, 25_000_000, "25 MHz"),
        ("max_std_leaf", 32, 0x23, "0x23"),
        ("cpu_vendorid_0", 32, 0, "0x0"),
    ],
)
def test_say(name: str, width: int, value: int, said: str) -> None:
    assert say(name, width, value) == said


@pytest.mark.parametrize(
    ("eax", "said"),
    [
        (0xC06F2, "family 0x6, model 0xcf, stepping 0x2"),
        (0x806F4, "family 0x6, model 0x8f, stepping 0x4"),
        (0xA20F10, "family 0x19, model 0x21, stepping 0x0"),
        (0x543, "family 0x5, model 0x4, stepping 0x3"),
    ],
)
def test_signature(eax: int, said: str) -> None:
    assert signature(eax) == said
