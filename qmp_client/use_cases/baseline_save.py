"""What the guests of a grid see, written to a file that is kept in a repository."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from qmp_client.baseline import show
from qmp_client.baseline.compare import compare
from qmp_client.baseline.file import place, read
from qmp_client.baseline.results import failed, guests, qemu_version
from qmp_client.baseline.text import Baseline, render
from qmp_client.errors import QemuError, UsageError
from qmp_client.files import check_folder, check_writable, write
from qmp_client.matrix.asked import Running, Words, asked, cells_of, plan
from qmp_client.matrix.progress import progress_on
from qmp_client.matrix.run import run as run_matrix
from qmp_client.report import policy
from qmp_client.report.console import many


class Request(NamedTuple):
    """What ``baseline save`` was asked."""

    name: str
    grid: Words
    qemu: str | None
    choose: str | None
    running: Running
    folder: Path


def run(request: Request) -> int:
    """Run the grid and write its baseline; say what that changes.

    Raises UsageError for words and files that are wrong, before anything is started; QemuError when a TD cannot be
    built, and then nothing is written.
    """
    path = place(request.folder, request.name)
    grid = asked(request.grid, (request.qemu,) if request.qemu else (), request.choose)
    if grid.choose not in ("model", "maximal", "minimal"):
        raise UsageError(f"a baseline cannot depend on the file {grid.choose}", hint="choose model, maximal or minimal")
    if len(grid.axes["qemu"]) > 1:
        raise UsageError("a baseline is one QEMU's", hint="save one, and check it with the others")
    cells = cells_of(grid.axes)
    before = read(path) if path.exists() else None
    check_folder(request.folder)
    check_writable([path] if request.folder.exists() else [])
    planned = plan(cells, grid.choose, grid.guest, policy.parse(policy.NONE), request.running)
    results = run_matrix(planned, progress_on(sys.stderr)).results
    if unbuilt := failed(results):
        raise QemuError(f"{len(unbuilt)} of {len(results)} TDs cannot be built, so nothing was saved", quoted=unbuilt)
    baseline = Baseline(qemu_version(results), grid.choose, guests(results), grid.guest.name)
    text = render(baseline)
    request.folder.mkdir(parents=True, exist_ok=True)
    write(path, text)
    if before is not None:
        _show_changes(request.name, before, baseline)
    in_full = text.count("\nmachines ")
    print(f"{path}: {many(len(results), 'TD')}, {in_full} in full, {len(text.splitlines())} lines")
    return 0


def _show_changes(name: str, before: Baseline, now: Baseline) -> None:
    machines = [machine for machine in compare(before, now.tds) if machine.groups]
    found = show.Found(name, before.qemu_version, now.qemu_version, machines, [], [], strict=False)
    for machine in machines:
        print(show.heading(found, machine))
