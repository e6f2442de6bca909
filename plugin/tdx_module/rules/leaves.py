"""The special cases about single leaves: each runs right after one of its leaves was computed from the table."""

from __future__ import annotations

from plugin.cpuid import Leaf, Registers
from plugin.tdx_module import names, statuses, xsave
from plugin.tdx_module.cause import Cause
from plugin.tdx_module.draft import EAX, EBX, ECX, Draft
from plugin.tdx_module.errors import SeamcallError, cpuid_refused
from plugin.tdx_module.rules import Setup


def _by(name: str) -> Cause:
    return Cause("module-rule", name)


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
                names_leaf="family/model" in setup.module.rcx,
            )
    elif wanted != platform:
        raise cpuid_refused(
            draft.leaf,
            f"family/model/stepping {wanted:#x} (leaf 1 EAX) is neither 0 nor the platform's {platform:#x}, and the "
            "TD is not migratable",
            names_leaf="family/model" in setup.module.rcx,
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


def xfam_gates(setup: Setup, draft: Draft) -> None:
    """Clear feature bits whose state XFAM does not contain; those it contains and nobody else decided are its doing."""
    gates = setup.module.rows[draft.leaf].gates
    for n, mask in gates:
        if not setup.xfam >> n & 1:
            draft.clear(Cause("xfam", str(n)), mask)
    for n, mask in gates:
        if setup.xfam >> n & 1:
            draft.keep(Cause("xfam", str(n)), mask)


def monitor(setup: Setup, draft: Draft) -> None:
    """Leaf 5 is zero unless the TD has MONITOR."""
    if not setup.bit(Leaf(1), ECX, 3):
        draft.clear(_by("monitor"))


def tsx(setup: Setup, draft: Draft) -> None:
    """HLE and RTM go together, and need the processor's IA32_TSX_CTRL."""
    if draft.leaf.subleaf != 0:
        return
    hle, rtm = draft.get(EBX) >> 4 & 1, draft.get(EBX) >> 11 & 1
    if hle != rtm:
        raise cpuid_refused(
            draft.leaf,
            f"HLE (0x7.0.ebx[4]) would be {hle} and RTM (0x7.0.ebx[11]) {rtm}; a TD has both or neither",
            names_leaf="tsx" in setup.module.rcx,
        )
    if hle and not setup.platform.tsx_ctrl:
        raise SeamcallError(
            statuses.INCORRECT_MSR_VALUE | statuses.IA32_ARCH_CAPABILITIES,
            "HLE and RTM are configured, but the processor has no IA32_TSX_CTRL (IA32_ARCH_CAPABILITIES[7] is 0)",
            leaf=draft.leaf,
        )


def pks(setup: Setup, draft: Draft) -> None:
    """0x7.0 ECX[31] is ATTRIBUTES.PKS."""
    if draft.leaf.subleaf == 0:
        draft.assign(ECX, 1 << 31, (1 << 31) * bool(setup.attributes & names.PKS), Cause("attributes", "PKS"))


def key_locker(_setup: Setup, draft: Draft) -> None:
    """No TD has Key Locker: 0x7.0 ECX[23] and leaf 0x19 are zero."""
    if draft.leaf.number == 0x19:
        draft.clear(_by("key-locker"))
    elif draft.leaf.subleaf == 0:
        draft.assign(ECX, 1 << 23, 0, _by("key-locker"))


def lass(setup: Setup, draft: Draft) -> None:
    """0x7.1 EAX[6] is ATTRIBUTES.LASS."""
    if draft.leaf.subleaf == 1:
        draft.assign(EAX, 1 << 6, (1 << 6) * bool(setup.attributes & names.LASS), Cause("attributes", "LASS"))


def perfmon(setup: Setup, draft: Draft) -> None:
    """Leaf 0xA is zero unless ATTRIBUTES.PERFMON."""
    if not setup.attributes & names.PERFMON:
        draft.clear(Cause("attributes", "PERFMON"))


def perfmon_extended(setup: Setup, draft: Draft) -> None:
    """Leaf 0x23 is zero unless ATTRIBUTES.PERFMON and the TD's 0x7.1 EAX[8] (ArchPerfmonExt)."""
    if not setup.attributes & names.PERFMON:
        draft.clear(Cause("attributes", "PERFMON"))
    elif not setup.bit(Leaf(7, 1), EAX, 8):
        draft.clear(_by("perfmon-extended"))


def perfmon_subleaves(setup: Setup, draft: Draft) -> None:
    """0x23.n, n >= 1, is zero unless the TD's 0x23.0 EAX[n] says that it exists."""
    n = draft.leaf.subleaf
    if n and not setup.bit(Leaf(0x23, 0), EAX, n):
        draft.clear(_by("perfmon-subleaves"))


def xsave_size(setup: Setup, draft: Draft) -> None:
    """0xD.0 ECX is the size of an XSAVE area for all user features of XFAM."""
    if draft.leaf.subleaf == 0:
        draft.assign(ECX, 0xFFFFFFFF, xsave.standard_size(setup.platform, setup.xfam), _by("xsave-size"))


def xfd(setup: Setup, draft: Draft) -> None:
    """0xD.1 EAX[4] (XFD) stays only when a feature in XFAM supports it."""
    if draft.leaf.subleaf == 1 and not xsave.disable_support(setup.platform) & setup.xfam:
        draft.clear(_by("xfd"), Registers(eax=0x10))


def xsave_component(setup: Setup, draft: Draft) -> None:
    """0xD.n, n >= 2, is zero unless XFAM[n]."""
    n = draft.leaf.subleaf
    if n is not None and n >= 2 and not setup.xfam >> n & 1:
        draft.clear(Cause("xfam", str(n)))


def processor_trace(setup: Setup, draft: Draft) -> None:
    """Leaf 0x14 is zero unless XFAM[8] (PT)."""
    _clear_without(8, setup, draft)


def lbr(setup: Setup, draft: Draft) -> None:
    """Leaf 0x1C is zero unless XFAM[15] (LBR)."""
    _clear_without(15, setup, draft)


def amx_tile(setup: Setup, draft: Draft) -> None:
    """Leaf 0x1D is zero unless XFAM[17] and XFAM[18] (AMX)."""
    _clear_without(17, setup, draft)
    _clear_without(18, setup, draft)


def _clear_without(n: int, setup: Setup, draft: Draft) -> None:
    if not setup.xfam >> n & 1:
        draft.clear(Cause("xfam", str(n)))


def tsc(setup: Setup, draft: Draft) -> None:
    """0x15 EBX is the virtual TSC frequency in units of 25 MHz; EAX and ECX are fixed at 1 and 25,000,000."""
    draft.assign(EBX, 0xFFFFFFFF, setup.tsc_25mhz, _by("tsc"))


def hybrid(setup: Setup, draft: Draft) -> None:
    """Leaf 0x1A (kind of core) is zero for a migratable TD."""
    if setup.attributes & names.MIGRATABLE:
        draft.clear(Cause("attributes", "MIGRATABLE"))


def linear_width(setup: Setup, draft: Draft) -> None:
    """0x80000008 EAX[15:8] is 57 when the TD has LA57 (0x7.0 ECX[16]), else 48."""
    width = 57 if setup.bit(Leaf(7, 0), ECX, 16) else 48
    draft.assign(EAX, 0xFF00, width << 8, _by("linear-width"))


def physical_width(setup: Setup, draft: Draft) -> None:
    """0x80000008 EAX[7:0] is the platform's width whatever is configured, EAX[23:16] is 0.

    That is without CONFIG_FLAGS.MAXPA_VIRT and MAXGPA_VIRT, which KVM does not set.
    """
    draft.assign(EAX, 0xFF, setup.platform.native_leaf(Leaf(0x80000008)).eax, _by("physical-width"))
    draft.assign(EAX, 0xFF0000, 0, _by("physical-width"))
