"""TDH.MNG.INIT: from TD_PARAMS to a TD's CPUID, in the module's own order of steps."""

from __future__ import annotations

from plugin.cpuid import ZERO, Leaf
from plugin.tdx_module import names, statuses
from plugin.tdx_module.draft import Draft, from_table
from plugin.tdx_module.errors import SeamcallError, cpuid_refused
from plugin.tdx_module.module import ModuleVersion
from plugin.tdx_module.platform import Platform
from plugin.tdx_module.rules import Setup
from plugin.tdx_module.rules.table import leaf_rules, table_rules
from plugin.tdx_module.td import Td, TdParams

TSC_UNIT_KHZ = 25_000
TSC_UNITS = range(4, 401)
"""The virtual TSC frequencies a TD may have, in units of 25 MHz: 100 MHz to 10 GHz."""


def init_td(module: ModuleVersion, platform: Platform, params: TdParams) -> Td:
    """Initialise a TD (SEAMCALL TDH.MNG.INIT) as far as CPUID is concerned.

    Raises SeamcallError as the module would: OPERAND_INVALID for ATTRIBUTES, XFAM, TSC_FREQUENCY or CPUID_CONFIG,
    and what the special rules refuse. The first reason found is reported, as the module does.
    """
    _check_attributes(module, platform, params.attributes)
    _check_xfam(module, platform, params.xfam)
    tsc_25mhz = (params.tsc_khz or platform.tsc_khz) // TSC_UNIT_KHZ
    if tsc_25mhz not in TSC_UNITS:
        raise SeamcallError(
            statuses.OPERAND_INVALID | statuses.TSC_FREQUENCY,
            f"a virtual TSC of {params.tsc_khz or platform.tsc_khz} kHz is outside 100 MHz to 10 GHz",
        )
    _check_slots(module, params)
    return Td(module, platform, params, _compute(module, platform, params, tsc_25mhz))


def _compute(module: ModuleVersion, platform: Platform, params: TdParams, tsc_25mhz: int) -> dict[Leaf, Draft]:
    drafts: dict[Leaf, Draft] = {}
    setup = Setup(module, platform, params.attributes, params.xfam, tsc_25mhz, drafts)
    by_number = leaf_rules(module)
    everywhere = by_number[None]
    for leaf, row in module.rows.items():
        drafts[leaf] = draft = from_table(row, platform.native_leaf(leaf), params.cpuid_config.get(leaf, ZERO))
        for rule in by_number.get(leaf.number, everywhere):
            rule(setup, draft)
    for table_rule in table_rules(module):
        table_rule(setup)
    return drafts


def _check_attributes(module: ModuleVersion, platform: Platform, attributes: int) -> None:
    reasons = names.explain_attributes(attributes)
    unsupported = attributes & ~module.attributes_on(platform)
    if unsupported:
        which = ", ".join(names.attribute_names(unsupported))
        reasons.insert(0, f"TDX module {module.name} on {platform.name} does not support {which}")
    missing = module.attributes_fixed1 & ~attributes
    if missing:
        reasons.append(f"{', '.join(names.attribute_names(missing))} must be set")
    if reasons:
        raise SeamcallError(
            statuses.OPERAND_INVALID | statuses.ATTRIBUTES, f"ATTRIBUTES {attributes:#x}: {'; '.join(reasons)}"
        )


def _check_xfam(module: ModuleVersion, platform: Platform, xfam: int) -> None:
    reasons = names.explain_xfam(xfam)
    unsupported = xfam & ~module.xfam_supported(platform)
    if unsupported:
        which = ", ".join(names.xfam_names(unsupported))
        reasons.insert(0, f"TDX module {module.name} on {platform.name} does not support {which}")
    if reasons:
        raise SeamcallError(statuses.OPERAND_INVALID | statuses.XFAM, f"XFAM {xfam:#x}: {'; '.join(reasons)}")


def _check_slots(module: ModuleVersion, params: TdParams) -> None:
    # A real call cannot express this: TD_PARAMS has no slot for such a leaf. Here it is a wrong bit like any other.
    for leaf, registers in params.cpuid_config.items():
        if leaf not in module.configurable and registers != ZERO:
            raise cpuid_refused(leaf, f"leaf {leaf} is not one that TDX module {module.name} lets the VMM configure")
