"""The grid in words, for readers whose mail program runs no script. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qmp_client.matrix.result import Result
from qmp_client.report.policy import Policy


class Row(NamedTuple):
    """One cell of the grid."""

    where: tuple[str, ...]
    """CPU, machine, module, platform, QEMU, SMP, KVM."""
    failing: int
    error: str | None


def rows(results: Sequence[Result], policy: Policy) -> list[Row]:
    """One row for every cell."""
    return [
        Row(
            (cell.cpu, cell.machine, cell.module, cell.platform, cell.qemu, cell.smp, cell.kvm),
            sum(policy.fails(line) for line in result.report.lines) if result.report else 0,
            None if result.report else result.error or "no report",
        )
        for result in results
        for cell in (result.cell,)
    ]
