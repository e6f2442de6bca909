"""What QEMU checks before a choice goes to KVM (x-tdx-set-cpuid-choices). Pure."""

from __future__ import annotations

from plugin.cpuid import REGISTERS, ZERO, Cpuid
from plugin.kvm.policy import WIDTH_LEAF, WIDTHS, guest_width
from qmp_client.errors import UsageError
from qmp_client.negotiation.choose import Choice


def check(choice: Choice, configurable: Cpuid, attributes: int, xfam: int) -> None:
    """Raise UsageError, naming leaf, register and bit, for a choice that QEMU does not take.

    ``attributes`` and ``xfam`` are the supported ones.
    """
    for what, chosen, supported in (("TD attribute", choice.attributes, attributes), ("XFAM", choice.xfam, xfam)):
        if excess := chosen & ~supported:
            raise _refused(f"{what} bit {_lowest(excess)} is not supported (supported: {supported:#x})")
    offered = {(leaf.number, leaf.subleaf or 0): mask for leaf, mask in configurable.items()}
    for leaf, registers in choice.cpuid.items():
        name = f"CPUID leaf {leaf.number:#x}" + (f" sub-leaf {leaf.subleaf}" if leaf.subleaf is not None else "")
        mask = offered.get((leaf.number, leaf.subleaf or 0))
        if mask is None:
            raise _refused(f"{name} is not configurable")
        for register in REGISTERS:
            if excess := registers.get(register) & ~mask.get(register):
                raise _refused(f"{name} {register.upper()} bit {_lowest(excess)} is not configurable")
    width = guest_width(choice.cpuid.get(WIDTH_LEAF, ZERO))
    if width not in WIDTHS:
        raise _refused(
            f"CPUID leaf 0x80000008 EAX bits 23:16 (guest physical address width) must be 48 or 52, not {width}"
        )


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _refused(said: str) -> UsageError:
    return UsageError(f"the choice cannot be made: {said}")
