"""The grid of a saved baseline, run again: what guests see now that they did not see before."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from qmp_client.baseline import show
from qmp_client.baseline.compare import compare
from qmp_client.baseline.file import place, read
from qmp_client.baseline.machine_type import newer
from qmp_client.baseline.results import failed, guests, qemu_version
from qmp_client.baseline.text import Baseline
from qmp_client.errors import MissingError
from qmp_client.files import check_writable, write
from qmp_client.matrix.asked import Running, cells_of, plan
from qmp_client.matrix.offer import machine_types
from qmp_client.matrix.progress import progress_on
from qmp_client.matrix.result import Cell
from qmp_client.matrix.run import run as run_matrix
from qmp_client.names import a_guest
from qmp_client.report import policy


class Request(NamedTuple):
    """What ``baseline check`` was asked."""

    name: str
    qemu: str | None
    running: Running
    folder: Path
    strict: bool
    junit: Path | None
    markdown: Path | None


def run(request: Request) -> int:
    """Run a baseline's grid and compare.

    Raises MissingError when there is no such baseline, UsageError for a bad one.
    """
    path = place(request.folder, request.name)
    if not path.exists():
        raise MissingError(f"there is no baseline {path}", hint=f"tdx-cpuid baseline save {request.name} writes it")
    check_writable([request.junit, request.markdown])
    before = read(path)
    cells = _cells(before, request.qemu)
    planned = plan(cells, before.choose, a_guest(before.guest), policy.parse(policy.NONE), request.running)
    results = run_matrix(planned, progress_on(sys.stderr)).results
    found = show.Found(
        name=request.name,
        saved_with=before.qemu_version,
        checked_with=qemu_version(results),
        machines=compare(before, guests(results)),
        failed=failed(results),
        notes=_notes(before, cells),
        strict=request.strict,
    )
    if request.junit:
        write(request.junit, show.junit(found))
    if request.markdown:
        write(request.markdown, show.markdown(found))
    show.show(found, sys.stdout)
    return found.exit_code


def _cells(baseline: Baseline, qemu: str | None) -> list[Cell]:
    """The baseline's grid, on this QEMU."""
    found: list[Cell] = []
    for td, seen in baseline.tds.items():
        axes = {axis: (value,) for axis, value in td._asdict().items()}
        found += cells_of(axes | {"machine": tuple(seen), "qemu": (qemu,) if qemu else ()})
    return found


def _notes(before: Baseline, cells: Sequence[Cell]) -> list[str]:
    """Say which newer machine types this QEMU has that the baseline does not know yet."""
    known = {machine for seen in before.tds.values() for machine in seen}
    new = newer(machine_types(Path(cells[0].qemu)), sorted(known)) if cells else []
    return [f"this QEMU has {', '.join(new)}, which the baseline does not cover"] if new else []
