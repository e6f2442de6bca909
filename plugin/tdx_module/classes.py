"""Who controls a bit under a module version, whatever the processor and the TD: the bit's class.

The masks of the table tell most of it. What a special rule does to a bit is found by running the rules on two TDs of a
processor that has everything, one configured with nothing and one with everything; no rule is described twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from plugin.cpuid import ALL, REGISTERS, Bit, Leaf, Registers
from plugin.tdx_module.cause import Cause
from plugin.tdx_module.init import init_td
from plugin.tdx_module.module import ModuleVersion, Row
from plugin.tdx_module.platform import Platform
from plugin.tdx_module.td import Td, TdParams
from plugin.typing import NamedTuple

CONFIGURABLE = "configurable"
ALLOW = "allow"
FIXED_0 = "fixed-0"
FIXED_1 = "fixed-1"
NATIVE = "native"
DYNAMIC = "dynamic"
VE = "ve"

CHOOSABLE = (CONFIGURABLE, ALLOW)
"""The classes of bits that the VMM can choose."""

_RULED = ("xfam", "attributes", "module-rule")
_LEVELS = (Registers(1, 2, 0x100), Registers(7, 128, 0x201), *(Registers(ecx=n) for n in range(2, 6)))
"""A topology that any version accepts: two threads, and 64 cores."""


_FAMILY_MODEL = 0x0FFF3FFF
"""The bits of leaf 1 EAX that are not reserved; a TD that nothing is configured for has the processor's."""


class BitClass(NamedTuple):
    """Who controls a bit.

    ``kind`` is ``configurable`` (exactly what the VMM says), ``allow`` (the processor's AND what the VMM says),
    ``fixed-0``, ``fixed-1``, ``native``, ``dynamic`` (computed as the guest asks), ``xfam``, ``attributes``,
    ``module-rule``, or ``ve`` (no value: CPUID raises #VE). ``detail`` belongs to the last four: the XFAM bit, the
    ATTRIBUTES bit, the rule, or the TD_CTLS bit by which the guest gets a value instead of #VE.
    ``gate`` is what else a choosable or native bit needs, such as ``xfam[5]``.
    """

    kind: str
    detail: str = ""
    gate: str = ""

    def __str__(self) -> str:
        named = f"#VE until {self.detail}" if self.kind == VE and self.detail else str(Cause(self.kind, self.detail))
        return f"{named} ({self.gate})" if self.gate else named

    @property
    def choosable(self) -> bool:
        """Whether the VMM has a say."""
        return self.kind in CHOOSABLE


def class_of(module: ModuleVersion, bit: Bit) -> BitClass:
    """Classify one bit; a leaf without a value is ``ve``."""
    return classes_of(module, bit.leaf)[REGISTERS.index(bit.register) * 32 + bit.position]


@lru_cache(maxsize=4096)
def classes_of(module: ModuleVersion, leaf: Leaf) -> tuple[BitClass, ...]:
    """Classify the 128 bits of a leaf: EAX from bit 0, then EBX, ECX, EDX."""
    row = module.row_of(leaf)
    if row is None or row.ve:
        return (BitClass(VE),) * 128
    if needed := module.guest.ve_until.get(leaf.number):
        return (BitClass(VE, needed),) * 128
    nothing, everything = _probes(module)
    return tuple(
        _class(row, index, n, first, last)
        for index, register in enumerate(REGISTERS)
        for n, (first, last) in enumerate(
            zip(nothing.causes(row.leaf, register), everything.causes(row.leaf, register), strict=True)
        )
    )


def _class(row: Row, index: int, n: int, nothing: Cause, everything: Cause) -> BitClass:
    """Combine the masks with what decided the bit in the two probes."""
    ruled = next((cause for cause in (everything, nothing) if cause.kind in _RULED), None)
    for kind, mask in ((CONFIGURABLE, row.config_direct), (ALLOW, row.allow_direct)):
        if mask[index] >> n & 1:
            return BitClass(kind, gate=str(ruled) if ruled else "")
    if everything.kind in _RULED:
        return BitClass(everything.kind, everything.detail)
    if row.dynamic[index] >> n & 1:
        return BitClass(DYNAMIC)
    if row.fixed1[index] >> n & 1:
        return BitClass(FIXED_1)
    if row.fixed0_or_dynamic[index] >> n & 1:
        return BitClass(FIXED_0)
    return BitClass(NATIVE, gate=str(ruled) if ruled else "")


@lru_cache(maxsize=16)
def _probes(module: ModuleVersion) -> tuple[Td, Td]:
    """Make two TDs without XFAM or ATTRIBUTES features: configured with nothing, and with everything."""
    native: Mapping[Leaf, Registers] = {
        **dict.fromkeys(module.rows, ALL),
        **{Leaf(0x1F, n): level for n, level in enumerate(_LEVELS)},
        Leaf(0xD, 0): Registers(3),
        Leaf(1): ALL.with_("eax", _FAMILY_MODEL),
    }
    platform = Platform("every bit set", "", native, tsx_ctrl=True)
    # The topology leaves and family/model have values that are refused; 0 = the platform's is always right.
    config = {leaf: mask for leaf, mask in module.configurable.items() if leaf.number != 0x1F}
    if Leaf(1) in config:
        config[Leaf(1)] = config[Leaf(1)].with_("eax", 0)
    params = TdParams(0, module.xfam_fixed1, {}, 2_500_000)
    return init_td(module, platform, params), init_td(module, platform, params._replace(cpuid_config=config))
