"""Every leaf of every version on every processor, computed a second time from the data files' bare masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import plugin.tdx_module
from plugin.cpuid import REGISTERS, Leaf, Registers
from plugin.tdx_module import TdParams, init_td, load_module, load_platform, module_names, platform_names

DATA = Path(plugin.tdx_module.__file__).parent / "data"
PAIRS = [(module, platform) for module in module_names() for platform in platform_names()]

# What special rules decide, by leaf: masks over EAX, EBX, ECX, EDX. The rest follows from the table alone.
ALL = (0xFFFFFFFF,) * 4
BY_RULE: dict[str, tuple[int, int, int, int]] = {
    "0x1": (0xFFFFFFFF, 0, 0, 0),
    "0x5": ALL,
    "0x7.0": (0, 0, 1 << 31 | 1 << 23, 0),
    "0x7.1": (1 << 6, 0, 0, 0),
    "0xa": ALL,
    "0xb.0": ALL,
    "0xb.1": ALL,
    "0xb.2": ALL,
    "0xd.0": (0, 0, 0xFFFFFFFF, 0),
    "0xd.1": (1 << 4, 0, 0, 0),
    **{f"0xd.{n}": ALL for n in range(2, 19)},
    "0x14.0": ALL,
    "0x14.1": ALL,
    "0x15": (0, 0xFFFFFFFF, 0, 0),
    "0x19": ALL,
    "0x1a": ALL,
    "0x1c": ALL,
    "0x1d.0": ALL,
    "0x1d.1": ALL,
    **{f"0x1f.{n}": ALL for n in range(6)},
    **{f"0x23.{n}": ALL for n in range(4)},
    "0x80000008": (0xFFFFFF, 0, 0, 0),
}


def read(version: str) -> dict[str, Any]:
    """The file as it is; a version with a base replaces whole rows of it."""
    table: dict[str, Any] = json.loads((DATA / "modules" / f"{version}.json").read_text())
    if "base" in table:
        rows = {row["leaf"]: row for row in read(table["base"])["rows"]}
        rows.update({row["leaf"]: row for row in table["rows"]})
        table["rows"] = list(rows.values())
    return table


def quad(text: str | None) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split()) if text else (0, 0, 0, 0)


def native(cpuid: dict[str, str], leaf: str) -> tuple[int, ...]:
    """The processor's record; the module's table and the record may differ in whether a leaf has sub-leaves."""
    number = leaf.partition(".")[0]
    if int(number, 16) > quad(cpuid["0x80000000" if int(number, 16) >> 31 else "0x0"])[0]:
        return (0, 0, 0, 0)
    return quad(cpuid.get(leaf) or cpuid.get(number) or (cpuid.get(number + ".0") if "." not in leaf else None))


def expected(row: dict[str, Any], value: tuple[int, ...], configured: tuple[int, ...]) -> list[int]:
    result = []
    for n in range(4):
        direct, allowed = quad(row.get("config_direct"))[n], quad(row.get("allow_direct"))[n]
        bits = value[n] & ~quad(row.get("fixed0_or_dynamic"))[n] | quad(row.get("fixed1"))[n]
        bits = bits & ~direct | configured[n] & direct
        result.append(bits & (configured[n] | ~allowed & 0xFFFFFFFF))
    return result


@pytest.mark.parametrize("everything", [False, True], ids=["minimal", "maximal"])
@pytest.mark.parametrize(("version", "processor"), PAIRS)
def test_values_follow_the_masks(version: str, processor: str, everything: bool) -> None:
    table = read(version)
    cpuid = json.loads((DATA / "platforms" / f"{processor}.json").read_text())["cpuid"]
    module, platform = load_module(version), load_platform(processor)
    config: dict[Leaf, Registers] = {}
    for row in table["rows"]:
        if everything and "config_index" in row and row["leaf"].partition(".")[0] not in ("0x1", "0x1f"):
            masks = zip(quad(row.get("config_direct")), quad(row.get("allow_direct")), strict=True)
            config[Leaf.parse(row["leaf"])] = Registers(*(direct | allowed for direct, allowed in masks))
    td = init_td(module, platform, TdParams(0, module.xfam_supported(platform), config))
    assert len(module.rows) == len(table["rows"])
    for row in table["rows"]:
        leaf = Leaf.parse(row["leaf"])
        got = td.read(leaf)
        if row.get("ve"):
            assert got is None, leaf
            continue
        assert got is not None, leaf
        wanted = expected(row, native(cpuid, row["leaf"]), config.get(leaf, Registers()))
        by_rule = BY_RULE.get(row["leaf"], (0, 0, 0, 0))
        if leaf == Leaf(0x80000008) and "physical-width" not in module.rules:
            by_rule = (0xFF00, 0, 0, 0)
        for register, value, want, rule in zip(REGISTERS, got, wanted, by_rule, strict=True):
            assert value & ~rule == want & ~rule, f"{leaf}.{register}"


@pytest.mark.parametrize(("version", "processor"), PAIRS)
def test_only_the_narrow_physical_width_of_one_processor_is_refused(version: str, processor: str) -> None:
    mismatches = plugin.tdx_module.check_platform(load_module(version), load_platform(processor))
    # The record of that machine has 46 bits; versions since 1.5.34 let the width be.
    demands_width = version not in ("1.5.34", "2.0.18", "future")
    if processor == "emerald-rapids" and demands_width:
        assert [(str(m.leaf), m.register, m.expected, m.actual) for m in mismatches] == [
            ("0x80000008", "eax", 0x34, 0x2E)
        ]
        assert "0x80000008.eax" in str(mismatches[0])
    else:
        assert mismatches == []
