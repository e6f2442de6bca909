"""A host on which a TDX module has started: a processor that meets the module's demands."""

from __future__ import annotations

from plugin.cpuid import Leaf
from plugin.tdx_module.errors import Mismatch
from plugin.tdx_module.module import ModuleVersion, check_platform, load_module
from plugin.tdx_module.platform import Platform, load_platform
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


def load_host(module: str, platform: str, *, strict: bool = False) -> TdxHost:
    """Load a module version and a platform by name. Raises UnknownName with the nearest names, PlatformRefused."""
    return tdx_host(load_module(module), load_platform(platform), strict=strict)
