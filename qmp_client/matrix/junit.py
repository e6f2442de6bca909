"""A matrix as JUnit XML: a suite per host, a case per model and machine type. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qmp_client.matrix.result import Cell, Result
from qmp_client.report.junit import Case, Problem, Suite, several
from qmp_client.report.policy import Policy


def render(results: Sequence[Result], policy: Policy) -> bytes:
    """The XML document. ``failure`` is a TD that does not meet the policy, ``error`` a cell without a report."""
    suites: dict[str, list[Case]] = {}
    for result in results:
        suites.setdefault(_suite(result.cell), []).append(_case(result, policy))
    return several("tdx-cpuid matrix", [Suite(name, cases) for name, cases in suites.items()])


def _suite(cell: Cell) -> str:
    return f"{cell.qemu} · module {cell.module} · {cell.platform} · {cell.kvm}"


def _case(result: Result, policy: Policy) -> Case:
    cell = result.cell
    return Case(
        classname=f"{cell.machine}.{cell.module}.{cell.platform}",
        name=f"{cell.cpu}, smp {cell.smp}",
        problem=_problem(result, policy),
        seconds=result.seconds,
    )


def _problem(result: Result, policy: Policy) -> Problem | None:
    if result.report is None:
        return Problem("error", result.error or "", f"exit status {result.exit_code}")
    if not result.exit_code:
        return None
    failing = policy.failing(result.report.lines)
    said = (f"{line.where} {line.name}: {line.values}, {line.verdict} ({line.cause})" for line in failing)
    return Problem("failure", f"{len(failing)} lines fail the policy", "policy", "\n".join(said))
