"""Why a QEMU that was starting is gone, in words for the person who typed the command line."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from plugin.cpuid.fields import all_fields
from plugin.tdx_module.statuses import describe
from qmp_client.errors import QemuError, TdxCpuidError, UsageError, nearest
from qmp_client.qemu.command_line import Machine

QUOTED_LINES = 12
"""How much of QEMU's standard error an error message shows."""

CONTENT = "exited with status 0"
"""An end that QEMU has only when it is told to."""

NOT_PATCHED = re.compile(r"Invalid parameter 'x-named-cpu-models'|x-named-cpu-models' not found")
"""What a stock QEMU says of the patches' property; the second is that of releases before the object had a schema."""

NO_MODEL = re.compile(r"unable to find CPU model '([^']+)'")
NO_FEATURE = re.compile(
    r"Property '[^']*?-cpu\.([^']+)' not found|can't apply global [^.]*?-cpu\.([^=]+)=[^:]*: Property"
)
SEAMCALL = re.compile(r"hw_errors?: (0x[0-9a-f]+)")


def explain(
    error: TdxCpuidError, ending: str, complaints: Sequence[str], machine: Machine, refusal: str = ""
) -> TdxCpuidError:
    """Turn a broken conversation and QEMU's last words into the error to show.

    ``refusal`` is KVM's own sentence, which only a simulated KVM tells; QEMU sees an errno and a status.
    What the user can mend on the command line becomes a UsageError, all else a QemuError.
    """
    text = "\n".join(complaints)
    if unknown := unknown_name(text, machine):
        return unknown
    status = SEAMCALL.search(text)
    answered = int(status.group(1), 16) if status else 0
    hint = f"the TDX module answered {describe(answered)}" if answered else error.hint
    if not hint and not complaints and ending == CONTENT:
        hint = f"is {machine.qemu} a QEMU?"
    return QemuError(
        f"QEMU {ending}: {reason(complaints) or error}",
        hint=f"KVM said {refusal}" if refusal else hint,
        quoted=complaints[-QUOTED_LINES:],
    )


def reason(complaints: Sequence[str]) -> str:
    """QEMU's first line that is no warning, without the program's name: what follows it are consequences.

    A line without the name is taken only where none has it: some parts of QEMU print bare sentences.
    """
    spoken = [line for line in complaints if line.strip() and "warning: " not in line]
    named = [line.partition(": ")[2] for line in spoken if line.startswith("qemu-system-")]
    return next(iter(named or spoken), "")


def unknown_name(text: str, machine: Machine) -> UsageError | None:
    """The error for a CPU model or feature that this QEMU does not have, if that is what it complains about."""
    if NOT_PATCHED.search(text):
        return UsageError(
            "this QEMU is a stock one, and takes no CPU model but host for a TD",
            hint="scripts/build-qemu builds one that does; with this one, take --cpu host and name features",
        )
    if found := NO_MODEL.search(text):
        return UsageError(
            f"this QEMU has no CPU model {found.group(1)}",
            hint=nearest(found.group(1), cpu_models(machine.qemu)) or f"{machine.qemu} -cpu help lists them",
        )
    if found := NO_FEATURE.search(text):
        feature = found.group(1) or found.group(2)
        return UsageError(
            f"this QEMU's CPU model has no feature {feature}",
            hint=nearest(feature, [field.qemu_name for field in all_fields() if field.qemu_name])
            or f"{machine.qemu} -cpu help lists them",
        )
    return None


def cpu_models(qemu: Path) -> list[str]:
    """The names that ``-cpu help`` lists; empty when QEMU does not answer."""
    try:
        listing = subprocess.run([qemu, "-cpu", "help"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    models = listing.stdout.partition("Recognized CPUID flags")[0]
    return [line.split()[0] for line in models.splitlines() if line.startswith("  ")]
