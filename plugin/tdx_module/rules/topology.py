"""The topology rule of TDH.MNG.INIT: leaf 0x1F is checked, and leaf 0xB follows from it."""

from __future__ import annotations

from plugin.cpuid import ZERO, Leaf, Registers
from plugin.tdx_module import statuses
from plugin.tdx_module.cause import Cause
from plugin.tdx_module.draft import EAX, EBX, ECX, EDX
from plugin.tdx_module.errors import SeamcallError
from plugin.tdx_module.rules import Setup

SUBLEAVES = 6
INVALID, SMT, CORE = 0, 1, 2
LEVELS = 6
"""Level types are below this: 1 SMT, 2 core, 3 module, 4 tile, 5 die (SDM, CPUID leaf 0x1F ECX[15:8])."""

_BY_TOPOLOGY = Cause("module-rule", "topology")
_BY_LEVELS = Cause("module-rule", "topology-levels")


def topology(setup: Setup) -> None:
    """Walk 0x1F.0 to 0x1F.5: all zero means the platform's own; the level types must make sense; derive 0xB."""
    leaves = [Leaf(0x1F, n) for n in range(SUBLEAVES)]
    if setup.drafts[leaves[0]].registers == ZERO:
        _use_native(setup, leaves, _BY_TOPOLOGY)
    seen: list[int] = []
    for leaf in leaves:
        registers = setup.drafts[leaf].registers
        level = registers.ecx >> 8 & 0xFF
        if level == INVALID:
            if CORE not in seen:
                missing = "it is the first" if not seen else "no core level (type 2) came before it"
                raise _malformed(leaf, f"{leaf} is an invalid level and {missing}")
        elif level >= LEVELS:
            raise _malformed(leaf, f"{leaf} has level type {level}; the highest is {LEVELS - 1} (die)")
        elif seen and level <= seen[-1]:
            raise _malformed(leaf, f"{leaf} has level type {level} after {seen[-1]}; types must rise")
        else:
            seen.append(level)
        if level == SMT:
            _copy(setup, registers, Leaf(0xB, 0), SMT)
        else:
            # The module rewrites this sub-leaf at every step, so the last one walked stays.
            _copy(setup, registers, Leaf(0xB, 1), CORE)


def topology_levels(setup: Setup) -> None:
    """Check 0x1F.0 to 0x1F.5 as "topology" does, and their level numbers; 0xB is the SMT and the last valid level.

    Came with 1.5.28 at the latest. 0xB's second level has the shift and count of the highest level of 0x1F, so what it
    describes is the whole package; the sub-leaves after it have nothing but their number.
    """
    leaves = [Leaf(0x1F, n) for n in range(SUBLEAVES)]
    if setup.drafts[leaves[0]].registers == ZERO:
        _use_native(setup, leaves, _BY_LEVELS)
    previous, core_seen, next_level, last = INVALID, False, 0, ZERO
    for n, leaf in enumerate(leaves):
        registers = setup.drafts[leaf].registers
        level = registers.ecx >> 8 & 0xFF
        if level == INVALID:
            if not core_seen:
                missing = "it is the first" if n == 0 else "no core level (type 2) came before it"
                raise _malformed(leaf, f"{leaf} is an invalid level and {missing}")
        else:
            if not previous < level < LEVELS:
                raise _malformed(leaf, f"{leaf} has level type {level} after {previous}; types must rise, up to 5")
            if registers.ecx & 0xFF != n:
                raise _malformed(leaf, f"{leaf} has level number {registers.ecx & 0xFF}; it must be {n}")
            if level == SMT:
                # A rising type 1 can only come first, or after an invalid level.
                if n:
                    raise _malformed(leaf, f"{leaf} is an SMT level; that has to be 0x1f.0")
                _assign(setup, Leaf(0xB, 0), registers, _BY_LEVELS)
                next_level = 1
            core_seen = core_seen or level == CORE
            last = registers
        previous = level
    _assign(setup, Leaf(0xB, next_level), last.with_("ecx", next_level | CORE << 8), _BY_LEVELS)
    for n in range(next_level + 1, 3):
        _assign(setup, Leaf(0xB, n), Registers(ecx=n), _BY_LEVELS)


def _use_native(setup: Setup, leaves: list[Leaf], cause: Cause) -> None:
    for leaf in leaves[1:]:
        if setup.drafts[leaf].registers != ZERO:
            raise _malformed(leaf, f"0x1f.0 is all zero (use the platform's topology), but {leaf} is not")
    for leaf in leaves:
        native = setup.platform.native_leaf(leaf)
        configurable = setup.module.rows[leaf].config_direct
        for index in (EAX, EBX, ECX):
            setup.drafts[leaf].assign(index, configurable[index], native[index], cause)


def _copy(setup: Setup, registers: Registers, target: Leaf, level: int) -> None:
    _assign(setup, target, registers.with_("ecx", registers.ecx & ~0xFF00 | level << 8), _BY_TOPOLOGY)


def _assign(setup: Setup, target: Leaf, values: Registers, cause: Cause) -> None:
    fixed0 = setup.module.rows[target].fixed0_or_dynamic
    for index in (EAX, EBX, ECX, EDX):
        setup.drafts[target].assign(index, ~fixed0[index] & 0xFFFFFFFF, values[index], cause)


def _malformed(leaf: Leaf, why: str) -> SeamcallError:
    return SeamcallError(statuses.CPUID_LEAF_1F_FORMAT_UNRECOGNIZED, f"malformed topology: {why}", leaf=leaf)
