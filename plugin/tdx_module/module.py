"""A version of the TDX module as data: one row per leaf, the gates, and the names of its special rules."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property, lru_cache

from plugin.cpuid import REGISTERS, ZERO, Bit, Leaf, Registers
from plugin.tdx_module.errors import Mismatch, UnknownName
from plugin.tdx_module.json_file import read_json
from plugin.tdx_module.platform import Platform
from plugin.typing import Any, NamedTuple

_FOLDER = os.path.join(os.path.dirname(__file__), "data", "modules")


class Row(NamedTuple):
    """What the module's table says about one leaf and sub-leaf. All fields but the first two are bit masks.

    A bit in no mask is native. ``dynamic`` is the part of ``fixed0_or_dynamic`` that the module computes when the
    guest executes CPUID; ``fixed0`` is the rest. ``gates`` lists XFAM bits and what is cleared without each.
    """

    leaf: Leaf
    config_index: int | None
    config_direct: Registers
    allow_direct: Registers
    fixed1: Registers
    fixed0_or_dynamic: Registers
    dynamic: Registers
    ve: bool
    platform_must_match_mask: Registers
    platform_must_match_value: Registers
    gates: tuple[tuple[int, Registers], ...]

    @property
    def configurable(self) -> Registers:
        """Bits the VMM may set in CPUID_CONFIG[config_index]."""
        return self.config_direct | self.allow_direct


class ModuleVersion:
    """One version of the TDX module: its CPUID table, what it supports, and which special rules it has."""

    def __init__(
        self,
        name: str,
        rows: Mapping[Leaf, Row],
        *,
        rules: tuple[str, ...],
        attributes: tuple[int, int],
        attributes_need: Mapping[int, Bit],
        xfam: tuple[int, int],
        family_models: tuple[int, ...],
        minimum_native_leaf: int,
        ve_until: Mapping[int, str],
        source: str,
        notes: tuple[str, ...],
    ) -> None:
        self.name = name
        self.rows = rows
        """The table, in the order TDH.MNG.INIT visits it: configurable rows by index, then the others."""
        self.rules = rules
        """Names of this version's special rules (see ``plugin.tdx_module.rules``), in the order they apply."""
        self.attributes_supported, self.attributes_fixed1 = attributes
        self.attributes_need = attributes_need
        """ATTRIBUTES bits that exist only where the processor has a CPUID bit."""
        self.xfam_mask, self.xfam_fixed1 = xfam
        self.family_models = family_models
        """Family/model/latest stepping (leaf 1 EAX) a migratable TD may have, newest first."""
        self.minimum_native_leaf = minimum_native_leaf
        self.ve_until = ve_until
        """Leaves that have a value and still raise #VE until the guest sets the named TD_CTLS bit (ve-reduction)."""
        self.source = source
        """Where the facts are from; empty for a version that the project's reference material came with."""
        self.notes = notes

    def __repr__(self) -> str:
        return f"<ModuleVersion {self.name}>"

    def xfam_supported(self, platform: Platform) -> int:
        """XFAM bits a TD may have: what the module knows and the processor has (TD_SYSINFO's XFAM_FIXED0)."""
        return self.xfam_mask & platform.state_components

    def attributes_on(self, platform: Platform) -> int:
        """ATTRIBUTES bits a TD may have on this processor (TD_SYSINFO's ATTRIBUTES_FIXED0)."""
        missing = 0
        for position, bit in self.attributes_need.items():
            if not platform.native_leaf(bit.leaf).get(bit.register) >> bit.position & 1:
                missing |= 1 << position
        return self.attributes_supported & ~missing

    @cached_property
    def configurable(self) -> Mapping[Leaf, Registers]:
        """TD_SYSINFO's CPUID_CONFIG[]: leaf to the bits that may be set, in the module's order."""
        return {row.leaf: row.configurable for row in self.rows.values() if row.config_index is not None}

    @cached_property
    def xfam_features(self) -> Mapping[int, tuple[Bit, ...]]:
        """XFAM bit to the feature bits that are cleared without it, ascending."""
        features: dict[int, list[Bit]] = {}
        for row in self.rows.values():
            for n, mask in row.gates:
                features.setdefault(n, []).extend(
                    Bit(row.leaf, register, position)
                    for register, bits in zip(REGISTERS, mask, strict=True)
                    for position in range(32)
                    if bits >> position & 1
                )
        return {n: tuple(features[n]) for n in sorted(features)}

    def row_of(self, leaf: Leaf) -> Row | None:
        """Find the row for a leaf and sub-leaf; a row without a sub-leaf answers for every sub-leaf."""
        return self.rows.get(leaf) or self.rows.get(Leaf(leaf.number))

    @property
    def maximum_leaf(self) -> int:
        """The highest basic leaf a TD sees."""
        return self.rows[Leaf(0)].fixed1.eax


def check_platform(module: ModuleVersion, platform: Platform) -> list[Mismatch]:
    """List why this module version would refuse to initialise on this processor (TDH.SYS.INIT); empty if it would."""
    found = []
    if platform.maximum_leaf < module.minimum_native_leaf:
        found.append(Mismatch(Leaf(0), "eax", 0xFFFFFFFF, module.minimum_native_leaf, platform.maximum_leaf))
    for row in module.rows.values():
        if row.platform_must_match_mask == ZERO:
            continue
        native = platform.native_leaf(row.leaf)
        for register, mask, expected, actual in zip(
            REGISTERS, row.platform_must_match_mask, row.platform_must_match_value, native, strict=True
        ):
            if actual & mask != expected:
                found.append(Mismatch(row.leaf, register, mask, expected, actual & mask))
    return found


@lru_cache(maxsize=1)
def published_names() -> tuple[str, ...]:
    """Names of the module versions that Intel published, oldest first."""
    return tuple(sorted((name for name in _names() if name[0].isdigit()), key=_age))


@lru_cache(maxsize=1)
def module_names() -> tuple[str, ...]:
    """Names of the module versions that come with the project: the published ones, oldest first, then made-up ones."""
    return published_names() + tuple(sorted(name for name in _names() if not name[0].isdigit()))


def _names() -> list[str]:
    return [name[:-5] for name in os.listdir(_FOLDER) if name.endswith(".json")]


def _age(name: str) -> tuple[int, ...]:
    """Order versions by their numbers: 1.0.3 before 1.5.05 before 1.5.34 before 2.0.18."""
    return tuple([int(number) for number in name.split(".")])


@lru_cache(maxsize=16)
def load_module(name: str) -> ModuleVersion:
    """Load a module version by name, or from a captured profile (a path that ends in .json).

    Raises UnknownName with the nearest names; BadModule, which is one, for a bad file.
    """
    if name.endswith(".json"):
        from plugin.tdx_module.module_file import module_from_file  # noqa: PLC0415 - rarely needed

        return module_from_file(name)
    # The file itself answers for a known name; listing the folder is for the others.
    if "/" in name or not os.path.exists(os.path.join(_FOLDER, name + ".json")):
        raise UnknownName("TDX module version", name, module_names())
    return _module(_read(name))


def _read(name: str) -> dict[str, Any]:
    """Read a version's file; one that names another as its base says only what it has differently."""
    data: dict[str, Any] = read_json(os.path.join(_FOLDER, name + ".json"))
    if "base" not in data:
        return data
    base = _read(data["base"])
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
        ve_until={int(leaf, 16): bit for leaf, bit in data.get("ve_until", {}).items()},
        source=data.get("source", ""),
        notes=tuple(data["notes"]),
    )
