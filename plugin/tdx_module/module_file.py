"""A version of the TDX module from its file in `data/modules`."""

from __future__ import annotations

import os

from plugin.cpuid import ZERO, Bit, Leaf, Registers
from plugin.tdx_module.json_file import read_json
from plugin.tdx_module.module import GuestRules, ModuleVersion, Row
from plugin.typing import Any


def read_module(path: str) -> ModuleVersion:
    """Read a file as `data/README.md` describes it. Raises OSError, ValueError, KeyError."""
    return _module(_read(path))


def _read(path: str) -> dict[str, Any]:
    """Read a version's file; one that names another beside it as its base says only what it has differently."""
    data: dict[str, Any] = read_json(path)
    if "base" not in data:
        return data
    base = _read(os.path.join(os.path.dirname(path), data["base"] + ".json"))
    rows = {row["leaf"]: row for row in base["rows"]} | {row["leaf"]: row for row in data["rows"]}
    return base | data | {"rows": list(rows.values())}


def _registers(words: str | None) -> Registers:
    return Registers._make([int(word, 16) for word in words.split()]) if words else ZERO


def _bit(text: str) -> Bit:
    leaf, register, position = text.rsplit(".", 2)
    return Bit(Leaf.parse(leaf), register, int(position))  # type: ignore[arg-type]


def _visiting_order(row: Row) -> tuple[bool, int]:
    return row.config_index is None, row.config_index or 0


def _module(data: dict[str, Any]) -> ModuleVersion:
    dynamic, gates = data["dynamic"], data["xfam_gates"]
    rows = []
    for raw in data["rows"]:
        text = raw["leaf"]
        rows.append(
            Row(
                Leaf.parse(text),
                raw.get("config_index"),
                _registers(raw.get("config_direct")),
                _registers(raw.get("allow_direct")),
                _registers(raw.get("fixed1")),
                _registers(raw.get("fixed0_or_dynamic")),
                _registers(dynamic.get(text)),
                raw.get("ve", False),
                _registers(raw.get("must_match_mask")),
                _registers(raw.get("must_match_value")),
                tuple([(int(n), _registers(mask)) for n, mask in gates.get(text, {}).items()]),
            )
        )
    attributes, xfam = data["attributes"], data["xfam"]
    return ModuleVersion(
        data["version"],
        {row.leaf: row for row in sorted(rows, key=_visiting_order)},
        rules=tuple(data["rules"]),
        attributes=(int(attributes["supported"], 16), int(attributes["fixed1"], 16)),
        attributes_need={int(n): _bit(text) for n, text in attributes["needs_native"].items()},
        xfam=(int(xfam["supported"], 16), int(xfam["fixed1"], 16)),
        family_models=tuple(int(text, 16) for text in data.get("family_models", ())),
        minimum_native_leaf=data["minimum_native_leaf"],
        guest=_guest(data.get("guest", {})),
        rcx=frozenset(data.get("rcx", ())),
        source=data.get("source", ""),
        notes=tuple(data["notes"]),
    )


def _guest(data: dict[str, Any]) -> GuestRules:
    return GuestRules(
        frozenset(data.get("td_ctls", ())),
        {int(leaf, 16): bit for leaf, bit in data.get("ve_until", {}).items()},
        {gate: tuple([_bit(text) for text in bits]) for gate, bits in data.get("gated", {}).items()},
        tuple([_bit(text) for text in data.get("on_before", ())]),
        {Leaf.parse(leaf): _registers(words) for leaf, words in data.get("native", {}).items()},
        {int(leaf, 16): gate for leaf, gate in data.get("faulting", {}).items()},
    )
