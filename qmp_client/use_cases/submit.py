"""Jobs for a lab, and what became of them."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from plugin.tdx_module.guests import DEFAULT_GUEST
from qmp_client.boot.show import sentence
from qmp_client.errors import MissingError, QemuError, UsageError
from qmp_client.files import check_writable, write
from qmp_client.lab import topics
from qmp_client.lab import wanted as grid
from qmp_client.lab.address import At
from qmp_client.lab.ledger import Ledger
from qmp_client.lab.names import check_name
from qmp_client.lab.printable import printable
from qmp_client.lab.submission import Submission, nobody
from qmp_client.lab.wire import Boot, Job, Result, encode
from qmp_client.matrix import grid_file, junit
from qmp_client.matrix import result as matrix
from qmp_client.matrix.progress import progress_on
from qmp_client.matrix.run import MatrixResult
from qmp_client.matrix.show import show as show_grid
from qmp_client.names import a_guest
from qmp_client.page import of_result, render
from qmp_client.report import policy
from qmp_client.report.console import console_for, many
from qmp_client.report.policy import Criteria, Policy
from qmp_client.report.table import show


class Axes(NamedTuple):
    """The axes of the grid; an empty one is left to the grid's file, or to the host."""

    cpu: tuple[str, ...]
    machine: tuple[str, ...]
    module: tuple[str, ...]
    platform: tuple[str, ...]
    qemu: tuple[str, ...]
    smp: tuple[str, ...]


class Guest(NamedTuple):
    """The guest to boot."""

    disk: str | None
    pattern: str | None
    guest_agent: bool
    seconds: float | None

    def wish(self) -> Boot | None:
        """As a part of a job; None for no guest. Raises UsageError for half a wish."""
        if self.disk is None:
            if self != NO_GUEST:
                raise UsageError("--until, --until-agent and --boot-seconds are about a guest: --boot DISK names it")
            return None
        if not self.pattern and not self.guest_agent:
            raise UsageError("--boot: what tells that the guest is up? --until PATTERN, --until-agent, or both")
        return Boot(disk=self.disk, pattern=self.pattern or "", guest_agent=self.guest_agent, seconds=self.seconds)


NO_GUEST = Guest(None, None, False, None)


class Request(NamedTuple):
    """What ``submit`` was asked."""

    at: At
    pool: str | None
    host: str | None
    grid_file: Path | None
    axes: Axes
    options: tuple[str, ...]
    guest: Guest
    console: Path | None
    choose: str | None
    seen_by: str | None
    name: str | None
    wanted: tuple[str, ...]
    wait: bool
    timeout: float | None
    fail_on: str | None
    form: str
    html: Path | None
    junit: Path | None


class Plan(NamedTuple):
    """What is sent, where to, and how the results are judged."""

    topic: str
    jobs: list[Job]
    judged: Policy


def run(request: Request) -> int:
    """Send jobs and wait for their results; return the exit status that they call for.

    Raises UsageError for what does not go together, MissingError for a broker that cannot be reached, QemuError when
    results are not there in time.
    """
    check_writable([request.html, request.junit, request.console])
    address = request.at.address()
    plan = _fetching(request) if request.wanted else _sending(request)
    ledger = Ledger(plan.jobs, request.wanted)
    _check_files(request, ledger)
    submission = Submission(address, request.at.lab, plan.topic, ledger, _tell)
    if not request.wait:
        return _send(submission, plan)
    started = time.monotonic()
    try:
        _wait(submission, ledger, plan.judged, request.timeout)
    except KeyboardInterrupt:
        _say_how_to_come_back(ledger)
        raise
    return _conclude(request, ledger, plan.judged, time.monotonic() - started)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fetching(request: Request) -> Plan:
    """No jobs: only results that are wanted."""
    sent = (request.pool, request.host, request.grid_file, request.options, request.choose, request.name)
    if any(sent) or any(request.axes) or request.guest != NO_GUEST or not request.wait:
        raise UsageError(
            "--result only fetches: it goes with --timeout, --fail-on, --format, --html, --junit and --console"
        )
    for one in request.wanted:
        check_name("--result", one)
    return Plan("", [], _judged(request.fail_on))


def _sending(request: Request) -> Plan:
    """The jobs: options are laid over the grid's file."""
    file = {} if request.grid_file is None else grid_file.read(request.grid_file)
    topic = _topic(request.at.lab, request.pool, request.host)
    guest = request.guest.wish()
    name = check_name("--id", request.name) if request.name else f"job-{secrets.token_hex(6)}"
    choose = request.choose or next(iter(file.get("choose", ())), "model")
    seen_by = a_guest(request.seen_by or next(iter(file.get("guest", ())), DEFAULT_GUEST)).name
    jobs = grid.jobs(_axes(request.axes, file), choose, name, request.options, guest, seen_by)
    said = request.fail_on if request.fail_on is not None else next(iter(file.get("fail-on", ())), None)
    return Plan(topic, jobs, _judged(said))


def _axes(axes: Axes, file: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The axes of the options, or else of the file; and what else the file has, which a job may not have."""
    named = axes._asdict()
    return {axis: named.get(axis) or file.get(axis, ()) for axis in (*named, *(set(file) - set(grid_file.SINGLE)))}


def _topic(lab: str, pool: str | None, host: str | None) -> str:
    if pool is not None and host is None:
        return topics.jobs(lab, check_name("--pool", pool))
    if host is not None and pool is None:
        return topics.host_jobs(lab, check_name("--host", host))
    raise UsageError("where to? either --pool or --host", hint="`tdx-cpuid watch --once` lists both")


def _judged(fail_on: str | None) -> Policy:
    return policy.parse(policy.DEFAULT if fail_on is None else fail_on)


def _check_files(request: Request, ledger: Ledger) -> None:
    """Raise UsageError for files that there could be nothing for."""
    if request.console and (len(ledger.ids) != 1 or not request.wait):
        raise UsageError("--console goes with one job that is waited for; --format json has the consoles of all")
    if request.console and any(job.boot is None for job in ledger.jobs.values()):
        raise UsageError("--console: without --boot there is no guest that could write to one")
    if (request.html or request.junit) and not request.wait:
        raise UsageError(
            "--html and --junit need the results, for which --no-wait does not wait",
            hint="`tdx-cpuid submit --result ID --html FILE` makes them later",
        )


def _send(submission: Submission, plan: Plan) -> int:
    """Send without waiting, and print the ids of what somebody takes."""
    left = asyncio.run(submission.send())
    for job in plan.jobs:
        if job not in left:
            print(job.id)
    if left:
        raise MissingError(f"{nobody(plan.topic)}: {len(left)} of {len(plan.jobs)} jobs were not sent")
    return 0


def _wait(submission: Submission, ledger: Ledger, judged: Policy, timeout: float | None) -> None:
    """Send and wait, with a line that shows how far it is."""
    try:
        asyncio.run(_follow(submission, ledger, Criteria(judged), timeout))
    except TimeoutError as error:
        _say_how_to_come_back(ledger)
        left, every = len(ledger.open), many(len(ledger.ids), "job")
        raise QemuError(f"{left} of {every} {'is' if left == 1 else 'are'} not done after {timeout:g} s") from error


async def _follow(submission: Submission, ledger: Ledger, criteria: Criteria, timeout: float | None) -> None:
    shown: set[str] = set()
    with progress_on(sys.stderr) as progress:
        progress.begin(len(ledger.ids), ())

        def changed() -> None:
            for job in set(ledger.results) - shown:
                shown.add(job)
                progress.step(grid.as_cell(ledger.jobs.get(job), ledger.results[job], criteria))
            progress.step(None)

        async with asyncio.timeout(timeout):
            await submission.run(changed)


def _say_how_to_come_back(ledger: Ledger) -> None:
    left = [job for job in ledger.open if job in ledger.progress or job not in ledger.jobs]
    if left:
        names = " ".join(f"--result {job}" for job in left[:3]) + (" ..." if len(left) > 3 else "")
        go_on = "1 job goes on" if len(left) == 1 else f"{len(left)} jobs go on"
        _tell(f"{go_on}; `tdx-cpuid submit {names}` gets what becomes of them")


def _conclude(request: Request, ledger: Ledger, judged: Policy, seconds: float) -> int:
    """Print and write what became of the jobs; return the exit status."""
    criteria = Criteria(judged)
    ended = [ledger.results[job] for job in ledger.ids if job in ledger.results]
    cells = [grid.as_cell(ledger.jobs.get(result.job), result, criteria) for result in ended]
    measured_now = [result for result in ended if result.job in ledger.jobs]
    outcome = MatrixResult(cells, seconds, len(measured_now), len({result.host for result in ended}), "host")
    for rejection in ledger.rejections.values():
        _tell(f"rejected by {rejection.host}: {rejection.job}: {printable(rejection.reason)}")
    _write_files(request, ended, cells, judged)
    if request.form == "json":
        sys.stdout.buffer.writelines(encode(result) + b"\n" for result in ended)
        sys.stdout.buffer.flush()
    elif len(ledger.ids) == 1 and ended and ended[0].report:
        _show_one(ended[0], criteria)
    elif cells:
        show_grid(outcome, judged, sys.stdout)
    if outcome.exit_code == QemuError.exit_code:
        return outcome.exit_code
    return UsageError.exit_code if ledger.rejections else outcome.exit_code


def _write_files(request: Request, ended: list[Result], cells: list[matrix.Result], judged: Policy) -> None:
    if request.html:
        write(request.html, render([of_result(cell) for cell in cells], judged))
    if request.junit:
        write(request.junit, junit.render(cells, judged))
    if request.console and ended and ended[0].boot:
        write(request.console, ended[0].boot.console)
    elif request.console:
        _tell(f"{request.console} is not written: the result has no console")


def _show_one(result: Result, criteria: Criteria) -> None:
    """The report of a job that was the only one."""
    assert result.report is not None
    print(f"{result.job} on {result.host}, {result.kvm} TDX, {result.seconds:.1f} s")
    show(result.report, criteria, console_for(sys.stdout))
    if result.boot:
        print(sentence(result.boot))
