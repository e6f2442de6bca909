"""What the page shows of one TD, wherever it comes from: a single report, or a cell of a matrix. Pure."""

from __future__ import annotations

from typing import NamedTuple

from qmp_client.matrix.result import Result
from qmp_client.report.model import Report


class Where(NamedTuple):
    """By what a page's TDs are told apart. Texts, as people are to read them."""

    cpu: str
    machine: str
    module: str
    platform: str
    qemu: str
    """The path of the binary."""
    smp: str
    kvm: str
    """The interface that KVM offers."""


class NoReport(NamedTuple):
    """Why there is nothing to show of a TD."""

    why: str
    exit_code: int
    """As of ``negotiate``: 2, 3 or 4."""


class Shown(NamedTuple):
    """One TD of the page."""

    where: Where
    became: Report | NoReport
    seconds: float = 0.0
    """How long it took to find out; 0 where nobody measured."""


def of_report(report: Report) -> Shown:
    """A report that belongs to no grid: where it was, it says itself."""
    request, environment = report.request, report.environment
    where = Where(
        cpu=request.cpu,
        machine=request.machine,
        module=environment.module or "not known",
        platform=environment.platform or "this host",
        qemu=environment.qemu,
        smp=request.smp,
        kvm=environment.interface,
    )
    return Shown(where, report)


def of_result(result: Result) -> Shown:
    """What became of a cell of a matrix."""
    cell = result.cell
    where = Where(cell.cpu, cell.machine, cell.module, cell.platform, cell.qemu, cell.smp, cell.kvm)
    return Shown(where, result.report or NoReport(result.error or "no report", result.exit_code), result.seconds)
