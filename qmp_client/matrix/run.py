"""A whole matrix: what is known already, what is left, and running that."""

from __future__ import annotations

import gc
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from plugin.kvm.host import HostRefused, find_host
from plugin.kvm.launch import preload
from plugin.tdx_module import TdxHost
from plugin.tdx_module.guests import Guest
from qmp_client.errors import TdxCpuidError, UsageError
from qmp_client.matrix import journal
from qmp_client.matrix.inputs import Inputs
from qmp_client.matrix.pool import Pool
from qmp_client.matrix.progress import Progress
from qmp_client.matrix.result import Cell, Result
from qmp_client.matrix.worker import Work
from qmp_client.negotiation.outcome import load_tables
from qmp_client.negotiation.wish import Wish
from qmp_client.report.policy import Criteria, Policy

TICK = 0.2
"""Seconds between two looks at the clock when nothing ends."""


class Plan(NamedTuple):
    """What to run, and how."""

    cells: Sequence[Cell]
    firmware: Path
    wish: Wish
    guest: Guest
    """Who executes CPUID in the TDs."""
    policy: Policy
    jobs: int
    timeout: float
    output: Path | None = None
    """Where results are kept, and taken from."""


class MatrixResult(NamedTuple):
    """What became of a plan."""

    results: list[Result]
    """One for each cell, in the plan's order."""
    seconds: float
    ran: int
    """How many cells were run now; the others were in the output file."""
    workers: int
    called: str = "job"
    """What the workers are: jobs, or a lab's hosts."""

    @property
    def exit_code(self) -> int:
        """4 when a cell has no report, 1 when a report does not meet the policy."""
        if any(result.report is None for result in self.results):
            return TdxCpuidError.exit_code
        return 1 if any(result.exit_code for result in self.results) else 0


def run(plan: Plan, progress: Progress) -> MatrixResult:
    """Run what is not known yet.

    Results are in ``plan.output`` as soon as they are there, so after an interrupt the same plan goes on.
    """
    started = time.monotonic()
    inputs = [Inputs(plan.firmware, plan.wish, plan.guest).of(cell) for cell in plan.cells]
    known = _known(plan, set(inputs))
    hosts, refused = _load_hosts(plan.cells)
    todo = [n for n, key in enumerate(inputs) if key not in known and _host(plan.cells[n]) not in refused]
    found = {n: known[key] for n, key in enumerate(inputs) if key in known}
    found |= {
        n: Result(cell, 0.0, None, refused[_host(cell)], UsageError.exit_code, inputs[n])
        for n, cell in enumerate(plan.cells)
        if n not in found and _host(cell) in refused
    }
    work = Work(plan.cells, hosts, inputs, plan.firmware, plan.wish, plan.guest, plan.policy, plan.timeout)
    numbers = {key: n for n, key in enumerate(inputs)}
    jobs = max(1, min(plan.jobs, len(todo)))
    with (
        journal.appending(plan.output) if plan.output else nullcontext() as kept,
        progress,
        closing(_ran(work, todo, jobs)) as ran,
    ):
        progress.begin(len(plan.cells), found.values())
        for result in ran:
            if result is not None:
                found[numbers[result.inputs]] = result
                if kept is not None:
                    kept.add(result)
            progress.step(result)
    return MatrixResult([found[n] for n in range(len(plan.cells))], time.monotonic() - started, len(todo), jobs)


def _ran(work: Work, todo: list[int], jobs: int) -> Generator[Result | None, None, None]:
    if not todo:
        return
    _load_the_rest()
    with Pool(work, jobs) as pool:
        yield from pool.run(todo, TICK)


def _known(plan: Plan, wanted: set[str]) -> dict[str, Result]:
    """The wanted results that the output file has, judged by today's policy. Failed cells are tried again."""
    if plan.output is None:
        return {}
    criteria = Criteria(plan.policy)
    return {
        result.inputs: replace(result, exit_code=criteria.exit_code(result.report.lines))
        for result in journal.read(plan.output)
        if result.report is not None and result.inputs in wanted
    }


def _host(cell: Cell) -> tuple[str, str]:
    return cell.module, cell.platform


def _load_hosts(cells: Iterable[Cell]) -> tuple[dict[tuple[str, str], TdxHost], dict[tuple[str, str], str]]:
    """Load every module version and platform, so that no worker has to; say of those that do not go together why."""
    hosts, refused = {}, {}
    for module, platform in dict.fromkeys(map(_host, cells)):
        try:
            hosts[module, platform] = find_host(module, platform)
        except HostRefused as error:
            refused[module, platform] = str(error)
    return hosts, refused


def _load_the_rest() -> None:
    """Load what every cell needs, and keep the collector from touching the workers' shared pages."""
    load_tables()
    gc.collect()
    preload()
