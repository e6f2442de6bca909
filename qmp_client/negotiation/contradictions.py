"""What no TD can be: choices that the TDX module refuses or empties, found before anything is started. Pure."""

from __future__ import annotations

from plugin.cpuid import REGISTERS, Bit, Cpuid, Leaf
from plugin.cpuid.fields import name_of
from plugin.tdx_module import ModuleVersion, explain_attributes, explain_xfam, xfam_names

HLE = Bit(Leaf(7, 0), "ebx", 4)
RTM = Bit(Leaf(7, 0), "ebx", 11)


def refused(cpuid: Cpuid, attributes: int | None, xfam: int | None) -> list[str]:
    """Say in a sentence each why the module cannot build such a TD; None stands for what is not known yet."""
    reasons = [] if attributes is None else explain_attributes(attributes)
    reasons += [] if xfam is None else explain_xfam(xfam)
    if (HLE.of(cpuid) or 0) != (RTM.of(cpuid) or 0):
        reasons.append(f"HLE ({HLE}) and RTM ({RTM}) must be chosen together")
    return reasons


def emptied(cpuid: Cpuid, xfam: int, module: ModuleVersion) -> list[str]:
    """Say which chosen features the module will clear all the same, because XFAM leaves out the state they need."""
    needing: dict[tuple[int, ...], list[str]] = {}
    for leaf, chosen in cpuid.items():
        row = module.row_of(leaf)
        for register, value in zip(REGISTERS, chosen, strict=True):
            for position in range(32):
                if row is None or not value >> position & 1:
                    continue
                lacking = tuple(
                    component
                    for component, mask in row.gates
                    if mask.get(register) >> position & 1 and not xfam >> component & 1
                )
                if lacking:
                    needing.setdefault(lacking, []).append(name_of(Bit(leaf, register, position)))
    return [
        f"{', '.join(names)} will be cleared: XFAM {xfam:#x} leaves out"
        f" {' and '.join(f'XFAM[{n}] ({xfam_names(1 << n)[0]})' for n in lacking)}"
        for lacking, names in needing.items()
    ]
