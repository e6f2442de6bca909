"""Why nothing is predicted: what QEMU, KVM or the TDX module would refuse, and what only a real QEMU can tell."""

from __future__ import annotations

from plugin.qemu.request import Refused, UnknownFeature, UnknownModel, Unpredictable
from qmp_client.errors import QemuError, TdxCpuidError, UsageError, nearest

NEGOTIATE = "tdx-cpuid negotiate runs the real QEMU"


def error_for(reason: Refused | Unpredictable) -> TdxCpuidError:
    """The error to show for a command line without a request."""
    if isinstance(reason, UnknownModel):
        return UsageError(
            f"this QEMU has no CPU model {reason.name}",
            hint=nearest(reason.name, reason.known) or "qemu-system-x86_64 -cpu help lists them",
        )
    if isinstance(reason, UnknownFeature):
        return UsageError(
            f"this QEMU's CPU model has no feature {reason.name}",
            hint=nearest(reason.name, reason.known) or "qemu-system-x86_64 -cpu help lists them",
        )
    if isinstance(reason, Unpredictable):
        return UsageError(f"predict cannot tell: {reason}", hint=NEGOTIATE)
    return QemuError(f"QEMU would refuse this: {reason}")
