"""ATTRIBUTES and XFAM in words."""

from __future__ import annotations

import pytest

from plugin.tdx_module import attribute_bit, attribute_names, explain_attributes, explain_xfam, xfam_names
from plugin.tdx_module.statuses import describe


def test_attribute_names() -> None:
    assert attribute_names(1 << 63 | 1 << 28 | 1) == ("DEBUG", "SEPT_VE_DISABLE", "PERFMON")
    assert attribute_names(1 << 5) == ("bit 5",)
    assert attribute_bit("pks") == 30


def test_xfam_names() -> None:
    assert xfam_names(0x60003) == ("X87", "SSE", "AMX_TILECFG", "AMX_TILEDATA")


@pytest.mark.parametrize("xfam", [0x3, 0x7, 0xE7, 0x1803, 0x60003, 0x602E7, 0x6DBE7])
def test_xfam_without_contradiction(xfam: int) -> None:
    assert explain_xfam(xfam) == []


@pytest.mark.parametrize(
    ("xfam", "words"),
    [
        (0x2, "x87 and SSE"),
        (0x27, "together"),
        (0xE3, "needs XFAM[2]"),
        (0x803, "CET"),
        (0x1003, "CET"),
        (0x20003, "AMX"),
        (0x40003, "AMX"),
    ],
)
def test_one_contradiction_one_sentence(xfam: int, words: str) -> None:
    (sentence,) = explain_xfam(xfam)
    assert words in sentence


def test_attributes_contradict() -> None:
    assert explain_attributes(1 << 29) == explain_attributes(1 | 1 << 63) == []
    assert explain_attributes(1 << 29 | 1 | 1 << 63) == [
        "a migratable TD cannot have DEBUG",
        "a migratable TD cannot have PERFMON",
    ]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xC000010000000045, "OPERAND_INVALID(CPUID_CONFIG)"),
        (0xC000010000000041, "OPERAND_INVALID(XFAM)"),
        (0xC00009210000010A, "INCORRECT_MSR_VALUE(0x10a)"),
        (0xC000090400000000, "CPUID_LEAF_1F_FORMAT_UNRECOGNIZED"),
        (0x8000020300000000, "0x8000020300000000"),
    ],
)
def test_statuses_in_words(status: int, words: str) -> None:
    assert describe(status) == words
