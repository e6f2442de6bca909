"""Many TDs at once, and what became of each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from qmp_client import page
from qmp_client.errors import UsageError
from qmp_client.files import check_writable, write
from qmp_client.matrix import junit
from qmp_client.matrix.asked import Running, Words, asked, cells_of, plan
from qmp_client.matrix.progress import progress_on
from qmp_client.matrix.run import MatrixResult, Plan
from qmp_client.matrix.run import run as run_matrix
from qmp_client.matrix.show import markdown, show
from qmp_client.report import policy


class Request(NamedTuple):
    """What ``matrix`` was asked."""

    grid: Words
    qemu: tuple[str, ...]
    choose: str | None
    fail_on: str | None
    running: Running
    output: Path | None
    junit: Path | None
    markdown: Path | None
    html: Path | None


def run(request: Request) -> int:
    """Run the grid, and write and show what became of it.

    Raises UsageError for words and files that are wrong, before anything is started, and at the end for a report that
    could not be written; MissingError for what this machine lacks.
    """
    grid = asked(request.grid, request.qemu, request.choose, request.fail_on)
    judged = policy.parse(policy.DEFAULT if grid.fail_on is None else grid.fail_on)
    check_writable([request.output, request.junit, request.markdown, request.html])
    result = _run(plan(cells_of(grid.axes), grid.choose, grid.guest, judged, request.running, request.output))
    unwritten = _write(request, result, judged)
    show(result, judged, sys.stdout)
    if unwritten:
        raise unwritten[0]
    return result.exit_code


def _run(what: Plan) -> MatrixResult:
    try:
        return run_matrix(what, progress_on(sys.stderr))
    except KeyboardInterrupt:
        kept = f"the same command goes on from {what.output}" if what.output else "--output FILE would have kept them"
        print(f"results so far: {kept}", file=sys.stderr)
        raise


def _write(request: Request, result: MatrixResult, judged: policy.Policy) -> list[UsageError]:
    """Write every report; return what is to be said of those that cannot be written."""
    documents: tuple[tuple[Path | None, Callable[[], str | bytes]], ...] = (
        (request.junit, lambda: junit.render(result.results, judged)),
        (request.markdown, lambda: markdown(result, judged)),
        (request.html, lambda: page.render([page.of_result(one) for one in result.results], judged)),
    )
    wrong: list[UsageError] = []
    for path, document in documents:
        if path is not None:
            try:
                write(path, document())
            except UsageError as error:
                wrong.append(error)
    return wrong
