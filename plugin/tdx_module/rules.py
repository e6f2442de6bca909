"""The special cases of TDH.MNG.INIT, each a named rule.

A module version lists the rules it has by name, in the order they apply; a version without a rule does not list
it. A leaf rule runs right after its leaf was computed from the table. A table rule runs after all leaves. Rules
change values only through :class:`~plugin.tdx_module.draft.Draft`, which records why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from plugin.cpuid import Leaf, Registers
from plugin.tdx_module import names, statuses, xsave
from plugin.tdx_module.cause import Cause
from plugin.tdx_module.draft import EAX, EBX, ECX, Draft
from plugin.tdx_module.errors import SeamcallError, cpuid_refused
from plugin.tdx_module.module import ModuleVersion
from plugin.tdx_module.platform import Platform
from plugin.typing import NamedTuple


class Setup(NamedTuple):
    """What a rule can look at: the call's inputs, and the leaves computed so far."""

    module: ModuleVersion
    platform: Platform
    attributes: int
    xfam: int
    tsc_25mhz: int
    drafts: dict[Leaf, Draft]

    def bit(self, leaf: Leaf, index: int, position: int) -> bool:
        """Tell whether the TD has a bit, False when the module has no such leaf."""
        draft = self.drafts.get(leaf)
        return draft is not None and bool(draft.get(index) >> position & 1)


Rule = Callable[[Setup, Draft], None]
TableRule = Callable[[Setup], None]

LEAF_RULES: dict[str, tuple[tuple[int, ...], Rule]] = {}
"""Name to the leaf numbers a rule is about (empty = every leaf) and the rule."""

TABLE_RULES: dict[str, TableRule] = {}


def leaf_rule(name: str, *numbers: int) -> Callable[[Rule], Rule]:
    """Register a rule that runs after each of these leaves."""

    def register(rule: Rule) -> Rule:
        LEAF_RULES[name] = (numbers, rule)
        return rule

    return register


def table_rule(name: str) -> Callable[[TableRule], TableRule]:
    """Register a rule that runs after all leaves."""

    def register(rule: TableRule) -> TableRule:
        TABLE_RULES[name] = rule
        return rule

    return register


def leaf_rules(module: ModuleVersion) -> Mapping[int | None, tuple[Rule, ...]]:
    """Sort a version's leaf rules by leaf number; None holds those about every leaf, applied in listed order too."""
    chosen = [LEAF_RULES[name] for name in module.rules if name in LEAF_RULES]
    numbers = {number for about, _ in chosen for number in about}
    everywhere = tuple(rule for about, rule in chosen if not about)
    by_number: dict[int | None, tuple[Rule, ...]] = {
        number: tuple(rule for about, rule in chosen if not about or number in about) for number in numbers
    }
    by_number[None] = everywhere
    return by_number


def _by(name: str) -> Cause:
    return Cause("module-rule", name)


@leaf_rule("family/model", 0x1)
def family_model(setup: Setup, draft: Draft) -> None:
    """Leaf 1 EAX 0 means the platform's. Other values: that one, or for a migratable TD one of the module's list."""
    platform = setup.platform.native_leaf(Leaf(1)).eax
    if draft.get(EAX) == 0:
        draft.assign(EAX, 0xFFFFFFFF, platform, _by("family/model"))
    wanted = draft.get(EAX)
    if setup.attributes & names.MIGRATABLE:
        if not _may_migrate(wanted, platform, setup.module.family_models):
            raise cpuid_refused(
                draft.leaf,
                f"family/model/stepping {wanted:#x} (leaf 1 EAX) is not one that a migratable TD may have on a "
                f"{platform:#x} processor with TDX module {setup.module.name}",
            )
    elif wanted != platform:
        raise cpuid_refused(
            draft.leaf,
            f"family/model/stepping {wanted:#x} (leaf 1 EAX) is neither 0 nor the platform's {platform:#x}, and the "
            "TD is not migratable",
        )


def _may_migrate(wanted: int, platform: int, listed: tuple[int, ...]) -> bool:
    """Apply the module's list: newest first, usable from the platform's own entry on, up to the listed stepping."""
    model, stepping = wanted >> 4, wanted & 0xF
    if model == platform >> 4 and stepping > platform & 0xF:
        return False
    models = [entry >> 4 for entry in listed]
    if platform >> 4 not in models:
        return False
    older = listed[models.index(platform >> 4) :]
    return any(model == entry >> 4 and stepping <= entry & 0xF for entry in older)


@leaf_rule("xfam")
def xfam_gates(setup: Setup, draft: Draft) -> None:
    """Clear feature bits whose state XFAM does not contain; those it contains and nobody else decided are its doing."""
    gates = setup.module.rows[draft.leaf].gates
    for n, mask in gates:
        if not setup.xfam >> n & 1:
            draft.clear(Cause("xfam", str(n)), mask)
    for n, mask in gates:
        if setup.xfam >> n & 1:
            draft.keep(Cause("xfam", str(n)), mask)


@leaf_rule("monitor", 0x5)
def monitor(setup: Setup, draft: Draft) -> None:
    """Leaf 5 is zero unless the TD has MONITOR."""
    if not setup.bit(Leaf(1), ECX, 3):
        draft.clear(_by("monitor"))


@leaf_rule("tsx", 0x7)
def tsx(setup: Setup, draft: Draft) -> None:
    """HLE and RTM go together, and need the processor's IA32_TSX_CTRL."""
    if draft.leaf.subleaf != 0:
        return
    hle, rtm = draft.get(EBX) >> 4 & 1, draft.get(EBX) >> 11 & 1
    if hle != rtm:
        # The module leaves RCX at 0 here.
        raise SeamcallError(
            statuses.OPERAND_INVALID | statuses.CPUID_CONFIG,
            f"HLE (0x7.0.ebx[4]) would be {hle} and RTM (0x7.0.ebx[11]) {rtm}; a TD has both or neither",
            leaf=draft.leaf,
        )
    if hle and not setup.platform.tsx_ctrl:
        raise SeamcallError(
            statuses.INCORRECT_MSR_VALUE | statuses.IA32_ARCH_CAPABILITIES,
            "HLE and RTM are configured, but the processor has no IA32_TSX_CTRL (IA32_ARCH_CAPABILITIES[7] is 0)",
            leaf=draft.leaf,
        )


@leaf_rule("pks", 0x7)
def pks(setup: Setup, draft: Draft) -> None:
    """0x7.0 ECX[31] is ATTRIBUTES.PKS."""
    if draft.leaf.subleaf == 0:
        draft.assign(ECX, 1 << 31, (1 << 31) * bool(setup.attributes & names.PKS), Cause("attributes", "PKS"))


@leaf_rule("key-locker", 0x7, 0x19)
def key_locker(_setup: Setup, draft: Draft) -> None:
    """No TD has Key Locker: 0x7.0 ECX[23] and leaf 0x19 are zero."""
    if draft.leaf.number == 0x19:
        draft.clear(_by("key-locker"))
    elif draft.leaf.subleaf == 0:
        draft.assign(ECX, 1 << 23, 0, _by("key-locker"))


@leaf_rule("lass", 0x7)
def lass(setup: Setup, draft: Draft) -> None:
    """0x7.1 EAX[6] is ATTRIBUTES.LASS."""
    if draft.leaf.subleaf == 1:
        draft.assign(EAX, 1 << 6, (1 << 6) * bool(setup.attributes & names.LASS), Cause("attributes", "LASS"))


@leaf_rule("perfmon", 0xA)
def perfmon(setup: Setup, draft: Draft) -> None:
    """Leaf 0xA is zero unless ATTRIBUTES.PERFMON."""
    if not setup.attributes & names.PERFMON:
        draft.clear(Cause("attributes", "PERFMON"))


@leaf_rule("perfmon-extended", 0x23)
def perfmon_extended(setup: Setup, draft: Draft) -> None:
    """Leaf 0x23 is zero unless ATTRIBUTES.PERFMON and the TD's 0x7.1 EAX[8] (ArchPerfmonExt)."""
    if not setup.attributes & names.PERFMON:
        draft.clear(Cause("attributes", "PERFMON"))
    elif not setup.bit(Leaf(7, 1), EAX, 8):
        draft.clear(_by("perfmon-extended"))


@leaf_rule("perfmon-subleaves", 0x23)
def perfmon_subleaves(setup: Setup, draft: Draft) -> None:
    """0x23.n, n >= 1, is zero unless the TD's 0x23.0 EAX[n] says that it exists."""
    n = draft.leaf.subleaf
    if n and not setup.bit(Leaf(0x23, 0), EAX, n):
        draft.clear(_by("perfmon-subleaves"))


@leaf_rule("xsave-size", 0xD)
def xsave_size(setup: Setup, draft: Draft) -> None:
    """0xD.0 ECX is the size of an XSAVE area for all user features of XFAM."""
    if draft.leaf.subleaf == 0:
        draft.assign(ECX, 0xFFFFFFFF, xsave.standard_size(setup.platform, setup.xfam), _by("xsave-size"))


@leaf_rule("xfd", 0xD)
def xfd(setup: Setup, draft: Draft) -> None:
    """0xD.1 EAX[4] (XFD) stays only when a feature in XFAM supports it."""
    if draft.leaf.subleaf == 1 and not xsave.disable_support(setup.platform) & setup.xfam:
        draft.clear(_by("xfd"), Registers(eax=0x10))


@leaf_rule("xsave-component", 0xD)
def xsave_component(setup: Setup, draft: Draft) -> None:
    """0xD.n, n >= 2, is zero unless XFAM[n]."""
    n = draft.leaf.subleaf
    if n is not None and n >= 2 and not setup.xfam >> n & 1:
        draft.clear(Cause("xfam", str(n)))


def _needs_xfam(name: str, number: int, bits: tuple[int, ...], doc: str) -> None:
    @leaf_rule(name, number)
    def rule(setup: Setup, draft: Draft) -> None:
        for n in bits:
            if not setup.xfam >> n & 1:
                draft.clear(Cause("xfam", str(n)))

    rule.__doc__ = doc


_needs_xfam("processor-trace", 0x14, (8,), "Leaf 0x14 is zero unless XFAM[8] (PT).")
_needs_xfam("lbr", 0x1C, (15,), "Leaf 0x1C is zero unless XFAM[15] (LBR).")
_needs_xfam("amx-tile", 0x1D, (17, 18), "Leaf 0x1D is zero unless XFAM[17] and XFAM[18] (AMX).")


@leaf_rule("tsc", 0x15)
def tsc(setup: Setup, draft: Draft) -> None:
    """0x15 EBX is the virtual TSC frequency in units of 25 MHz; EAX and ECX are fixed at 1 and 25,000,000."""
    draft.assign(EBX, 0xFFFFFFFF, setup.tsc_25mhz, _by("tsc"))


@leaf_rule("hybrid", 0x1A)
def hybrid(setup: Setup, draft: Draft) -> None:
    """Leaf 0x1A (kind of core) is zero for a migratable TD."""
    if setup.attributes & names.MIGRATABLE:
        draft.clear(Cause("attributes", "MIGRATABLE"))


@leaf_rule("linear-width", 0x80000008)
def linear_width(setup: Setup, draft: Draft) -> None:
    """0x80000008 EAX[15:8] is 57 when the TD has LA57 (0x7.0 ECX[16]), else 48."""
    width = 57 if setup.bit(Leaf(7, 0), ECX, 16) else 48
    draft.assign(EAX, 0xFF00, width << 8, _by("linear-width"))


@leaf_rule("physical-width", 0x80000008)
def physical_width(setup: Setup, draft: Draft) -> None:
    """0x80000008 EAX[7:0] is the platform's width whatever is configured, EAX[23:16] is 0.

    That is without CONFIG_FLAGS.MAXPA_VIRT and MAXGPA_VIRT, which KVM does not set.
    """
    draft.assign(EAX, 0xFF, setup.platform.native_leaf(Leaf(0x80000008)).eax, _by("physical-width"))
    draft.assign(EAX, 0xFF0000, 0, _by("physical-width"))
