"""What one QEMU binary, and the simulation, have to choose from."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from plugin.kvm.launch import DIALECTS
from plugin.tdx_module import module_names, platform_names, published_names
from qmp_client.errors import QemuError
from qmp_client.matrix.grid import Offer
from qmp_client.qemu.ending import cpu_models

NO_TD = "none"
"""The machine type without anything in it."""


def of(qemu: Path, *, cpu: bool, machine: bool) -> Offer:
    """What there is. QEMU is asked only for what is needed. Raises QemuError when it does not answer."""
    return Offer(
        cpu=_answer(qemu, "CPU models", cpu_models(qemu)) if cpu else (),
        machine=_answer(qemu, "machine types", machine_types(qemu)) if machine else (),
        module=module_names(),
        published=published_names(),
        platform=platform_names(),
        kvm=DIALECTS,
    )


def machine_types(qemu: Path) -> list[str]:
    """The names that ``-machine help`` lists, oldest version first, then those without a version."""
    try:
        listing = subprocess.run([qemu, "-machine", "help"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    names = [line.split()[0] for line in listing.stdout.splitlines()[1:] if line.strip()]
    return sorted((name for name in names if name != NO_TD), key=_age)


def _age(name: str) -> tuple[bool, str, list[int]]:
    family, _, version = name.rpartition("-")
    numbers = [int(number) for number in version.split(".") if number.isdigit()]
    return not (family and numbers), family, numbers


def _answer(qemu: Path, what: str, found: Sequence[str]) -> Sequence[str]:
    if not found:
        raise QemuError(f"{qemu} does not say which {what} it has", hint="name them instead of using all or a pattern")
    return found
