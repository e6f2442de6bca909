"""A host on which a TDX module has started: a processor that meets the module's demands."""

from __future__ import annotations

from plugin.cpuid import REGISTERS, ZERO, Leaf
from plugin.tdx_module.errors import Mismatch
from plugin.tdx_module.module import ModuleVersion
from plugin.tdx_module.platform import Platform
from plugin.typing import NamedTuple


class TdxHost(NamedTuple):
    """A module version on a processor. ``assumed`` is what the processor's record was corrected by."""

    module: ModuleVersion
    platform: Platform
    assumed: tuple[Mismatch, ...] = ()

    def assumptions(self) -> list[str]:
        """Say in a sentence each what was taken to be other than the processor's record has it."""
        return [
            f"the record of {self.platform.name} is of a machine on which module {self.module.name} would not start"
            f" ({mismatch}); the demanded value is assumed"
            for mismatch in self.assumed
        ]


class PlatformRefused(Exception):
    """The module would not start on this processor; ``mismatches`` says for which bits."""

    def __init__(self, module: str, platform: str, mismatches: tuple[Mismatch, ...]) -> None:
        super().__init__(module, platform, mismatches)
        self.module = module
        self.platform = platform
        self.mismatches = mismatches

    def __str__(self) -> str:
        vendor = {one.register: one.actual for one in self.mismatches if one.leaf == Leaf(0) and one.register != "eax"}
        if vendor:
            said = b"".join(vendor.get(register, 0).to_bytes(4, "little") for register in ("ebx", "edx", "ecx"))
            reasons = f"its vendor is {said.decode('ascii', 'replace')}, not GenuineIntel"
        else:
            reasons = "; ".join(str(mismatch) for mismatch in self.mismatches)
        return f"TDX module {self.module} does not start on {self.platform}: {reasons}"


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


def tdx_host(module: ModuleVersion, platform: Platform, *, strict: bool = False) -> TdxHost:
    """Return the host as the module finds it, with every bit that it demands (TDH.SYS.INIT, TDH.SYS.LP.INIT).

    A record can be of the right processor in the wrong state: firmware that limits addresses to 46 bits must be told
    not to before TDX can be enabled, for one. Such bits are corrected and listed.

    Raises PlatformRefused if there are any and ``strict`` is set, and for a processor of another vendor in any case.
    """
    assumed = tuple(check_platform(module, platform))
    if assumed and (strict or any(one.leaf == Leaf(0) and one.register != "eax" for one in assumed)):
        raise PlatformRefused(module.name, platform.name, assumed)
    if not assumed:
        return TdxHost(module, platform)
    corrected = dict(platform.native)
    for mismatch in assumed:
        leaf = mismatch.leaf if mismatch.leaf in corrected else Leaf(mismatch.leaf.number, mismatch.leaf.subleaf or 0)
        value = platform.native_leaf(mismatch.leaf) if leaf not in corrected else corrected[leaf]
        bits = value.get(mismatch.register) & ~mismatch.mask | mismatch.expected
        corrected[leaf] = value.with_(mismatch.register, bits)
    native = Platform(platform.name, platform.description, corrected, tsx_ctrl=platform.tsx_ctrl, notes=platform.notes)
    return TdxHost(module, native, assumed)
