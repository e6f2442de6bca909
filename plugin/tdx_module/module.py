"""A version of the TDX module as data: one row per leaf, the gates, and the names of its special rules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from plugin.cpuid import Bit, Leaf, Registers
from plugin.tdx_module.platform import Platform
from plugin.typing import NamedTuple


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


class GuestRules(NamedTuple):
    """What the CPUID instruction answers in the guest other than what the TD holds; see ``plugin.tdx_module.guest``."""

    td_ctls: frozenset[str] = frozenset()
    """Bits of TD_CTLS about CPUID that a guest can set."""
    ve_until: Mapping[int, str] = {}
    """Leaves that have a value and still raise #VE until the guest sets the named TD_CTLS bit."""
    gated: Mapping[str, tuple[Bit, ...]] = {}
    """Bits of TDCS.FEATURE_PARAVIRT_CTRL, and the CPUID bits that each gives back to a guest with REDUCE_VE."""
    on_before: tuple[Bit, ...] = ()
    """CPUID bits that read 1, whatever the TD holds, until the guest sets REDUCE_VE."""
    native: Mapping[Leaf, Registers] = {}
    """Bits that are the processor's own for a guest with REDUCE_VE."""
    faulting: Mapping[int, str] = {}
    """Leaves without a value that raise #VE while the guest sees the feature of that FEATURE_PARAVIRT_CTRL bit."""


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
        guest: GuestRules,
        rcx: frozenset[str],
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
        self.guest = guest
        """What a guest changes of what its CPUID instruction answers."""
        self.rcx = rcx
        """The special rules whose refusals leave the leaf in RCX, as the table's own do."""
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

    def row_of(self, leaf: Leaf) -> Row | None:
        """Find the row for a leaf and sub-leaf; a row without a sub-leaf answers for every sub-leaf."""
        return self.rows.get(leaf) or self.rows.get(Leaf(leaf.number))

    @property
    def maximum_leaf(self) -> int:
        """The highest basic leaf a TD sees."""
        return self.rows[Leaf(0)].fixed1.eax
