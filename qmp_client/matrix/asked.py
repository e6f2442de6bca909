"""A grid as the command line has it, and from its words to what is run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM, DIALECTS
from plugin.tdx_module import UnknownName
from plugin.tdx_module.guests import DEFAULT_GUEST, Guest
from qmp_client.errors import UsageError
from qmp_client.matrix import grid_file
from qmp_client.matrix.grid import Grid, cells, is_pattern
from qmp_client.matrix.offer import of
from qmp_client.matrix.result import Cell
from qmp_client.matrix.run import Plan
from qmp_client.names import a_guest, a_host, a_module, a_platform
from qmp_client.negotiation.understand import understand
from qmp_client.qemu import firmware, locate
from qmp_client.report.policy import Policy

DEFAULTS = {
    "cpu": ("host",),
    "machine": ("q35",),
    "module": (DEFAULT_MODULE,),
    "platform": (DEFAULT_PLATFORM,),
    "smp": ("1",),
    "kvm": (DIALECTS[0],),
}


class Words(NamedTuple):
    """The axes of a grid as they were typed, and the file that has them."""

    grid_file: Path | None
    cpu: tuple[str, ...]
    machine: tuple[str, ...]
    module: tuple[str, ...]
    platform: tuple[str, ...]
    smp: tuple[str, ...]
    kvm: tuple[str, ...]
    guest: str | None = None
    """Who executes CPUID in the TDs."""


class Running(NamedTuple):
    """How cells are run."""

    firmware_file: Path | None
    jobs: int | None
    """How many at once; None: one for each core that this process may use."""
    timeout: float
    """Seconds for each step of a cell."""


class Asked(NamedTuple):
    """A grid as the options and the file have it together."""

    axes: Mapping[str, tuple[str, ...]]
    choose: str
    guest: Guest
    fail_on: str | None


def asked(words: Words, qemu: tuple[str, ...], choose: str | None, fail_on: str | None = None) -> Asked:
    """Lay options over the file, and the file over the defaults. Raises UsageError for a file that is no grid."""
    axes = words._asdict() | {"qemu": qemu}
    file, guest = axes.pop("grid_file"), axes.pop("guest")
    given = {} if file is None else grid_file.read(file)
    together = {axis: said or given.get(axis, DEFAULTS.get(axis, ())) for axis, said in axes.items()}
    return Asked(
        together,
        choose or "".join(given.get("choose", ("model",))),
        a_guest(guest or "".join(given.get("guest", (DEFAULT_GUEST,)))),
        fail_on if fail_on is not None else next(iter(given.get("fail-on", ())), None),
    )


def cells_of(axes: Mapping[str, tuple[str, ...]]) -> list[Cell]:
    """The cells of a grid, for each of its QEMUs; every name is checked before anything is started.

    Raises UsageError for names that do not exist and patterns that match nothing.
    """
    grid = Grid(*(axes[axis] for axis in Grid._fields))
    found: list[Cell] = []
    for given in axes["qemu"] or (None,):
        qemu = locate.find_qemu(given)
        offer = of(qemu, cpu=any(map(is_pattern, grid.cpu)), machine=any(map(is_pattern, grid.machine)))
        found += cells(grid, str(qemu), offer)
    _check_names(found)
    return list(dict.fromkeys(found))


def plan(
    found: Sequence[Cell], choose: str, guest: Guest, policy: Policy, running: Running, output: Path | None = None
) -> Plan:
    """What to run, and how. Raises UsageError and MissingError for firmware and choices that will not do."""
    return Plan(
        cells=found,
        firmware=firmware.find_firmware(running.firmware_file),
        wish=understand(choose, None, None),
        guest=guest,
        policy=policy,
        jobs=running.jobs or len(os.sched_getaffinity(0)),
        timeout=running.timeout,
        output=output,
    )


def _check_names(found: Sequence[Cell]) -> None:
    for kvm in dict.fromkeys(cell.kvm for cell in found):
        if kvm not in DIALECTS:
            raise UsageError(str(UnknownName("KVM interface", kvm, DIALECTS)))
    for module, platform in dict.fromkeys((cell.module, cell.platform) for cell in found):
        if platform == "native":
            a_host(module, platform)
        else:  # whether the module starts there is for each cell to say
            a_module(module)
            a_platform(platform)
