"""What a grid's results say of its guests. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qmp_client.baseline.guest import Guest, Td, guest
from qmp_client.matrix.progress import name
from qmp_client.matrix.result import Result


def guests(results: Sequence[Result]) -> dict[Td, dict[str, Guest]]:
    """What each TD that could be built shows its guest, by the TD and its machine type."""
    found: dict[Td, dict[str, Guest]] = {}
    for result in results:
        cell = result.cell
        if result.report is not None:
            td = Td(cell.kvm, cell.module, cell.platform, cell.smp, cell.cpu)
            found.setdefault(td, {})[cell.machine] = guest(result.report)
    return found


def failed(results: Sequence[Result]) -> list[str]:
    """A sentence for each TD that could not be built."""
    return [f"{name(result.cell)}: {result.error}" for result in results if result.report is None]


def qemu_version(results: Sequence[Result]) -> str:
    """The version of the QEMU that built them; empty when it built none."""
    return next((result.report.environment.qemu_version for result in results if result.report), "")
