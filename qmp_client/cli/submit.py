"""``tdx-cpuid submit``: jobs for a lab, and what became of them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qmp_client.cli.broker_options import broker_options, the_address
from qmp_client.errors import MissingError, QemuError, UsageError
from qmp_client.files import check_writable, write

if TYPE_CHECKING:
    from qmp_client.lab.ledger import Ledger
    from qmp_client.lab.submission import Submission
    from qmp_client.lab.wire import Boot
    from qmp_client.report.policy import Policy

EXAMPLES = """
\b
Examples:
  tdx-cpuid submit --broker mqtt://localhost --pool emr --cpu host,-avx512f
  tdx-cpuid submit --pool emr --cpu host --cpu SapphireRapids --module 1.5.05 --module 2.0.18 --html grid.html
  tdx-cpuid submit --pool emr --file grid.toml --no-wait
  tdx-cpuid submit --pool emr --boot debian --until 'login:'       (start the guest, too)
  tdx-cpuid submit --result job-5c1e9a --format json
"""
MANY = "repeatable"


@click.command("submit", short_help="Send jobs to a lab and wait for the results.", epilog=EXAMPLES)
@broker_options
@click.option("--pool", help="Send to whichever host of this pool is free.")
@click.option("--host", help="Send to this host.")
@click.option("--file", "grid_file", type=click.Path(path_type=Path), help="A TOML grid, as of `matrix`; no patterns.")
@click.option("--cpu", multiple=True, help=f"QEMU's -cpu; {MANY}.  [default: host]")
@click.option("--machine", multiple=True, help=f"A machine type of the host's list; {MANY}.  [default: its first]")
@click.option("--module", multiple=True, help=f"A TDX module of the host's list; {MANY}.  [default: its first]")
@click.option("--platform", multiple=True, help=f"A platform of the host's list; {MANY}.  [default: its first]")
@click.option("--qemu", multiple=True, help=f"A QEMU of the host's list, by name; {MANY}.  [default: its first]")
@click.option("--smp", multiple=True, help=f"How many vCPUs; {MANY}.  [default: 1]")
@click.option("--option", "options", multiple=True, help="QEMU options of the host's list, by name; repeatable.")
@click.option(
    "--boot", "disk", metavar="DISK", help="Boot a guest from this disk of the host's list ('' for its first)."
)
@click.option("--until", "pattern", help="The guest is up when a line of its console matches this regular expression.")
@click.option("--until-agent", "guest_agent", is_flag=True, help="The guest is up when its QEMU agent answers.")
@click.option(
    "--boot-seconds", type=click.FloatRange(min=0, min_open=True), help="For it to be up.  [default: the host's limit]"
)
@click.option("--console", type=click.Path(path_type=Path), help="Write the guest's console; for one job.")
@click.option("--choose", help="model, maximal or minimal.  [default: model]")
@click.option("--id", "name", help="The job's id; several jobs are called ID-1, ID-2, ...  [default: a new one]")
@click.option("--result", "wanted", multiple=True, help="Send nothing; get the result of this job. Repeatable.")
@click.option("--wait/--no-wait", default=True, help="--no-wait prints the ids, and the jobs go on.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds to wait.  [default: no limit]")
@click.option("--fail-on", help="Verdicts that make the exit status 1, or none.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--html", type=click.Path(path_type=Path), help="Write the grid as a page.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML.")
def command(
    broker: str,
    lab: str,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    password_file: Path | None,
    pool: str | None,
    host: str | None,
    grid_file: Path | None,
    cpu: tuple[str, ...],
    machine: tuple[str, ...],
    module: tuple[str, ...],
    platform: tuple[str, ...],
    qemu: tuple[str, ...],
    smp: tuple[str, ...],
    options: tuple[str, ...],
    disk: str | None,
    pattern: str | None,
    guest_agent: bool,
    boot_seconds: float | None,
    console: Path | None,
    choose: str | None,
    name: str | None,
    wanted: tuple[str, ...],
    wait: bool,
    timeout: float | None,
    fail_on: str | None,
    form: str,
    html: Path | None,
    junit: Path | None,
) -> int:
    """Send a job, or one for each cell of a grid, to a lab and wait for the results.

    A job goes to one host of the pool; the broker picks it. Ctrl-C leaves the jobs running.

    With --boot the guest is started as well: on hardware in the TD, on a simulated host in plain emulation.

    Exit status 1 when a TD does not meet the policy, 2 when a job was rejected, 4 when one failed.
    """
    from qmp_client.lab import wanted as grid  # noqa: PLC0415
    from qmp_client.lab.ledger import Ledger  # noqa: PLC0415
    from qmp_client.lab.names import check_name  # noqa: PLC0415
    from qmp_client.lab.submission import Submission, nobody  # noqa: PLC0415
    from qmp_client.report import policy  # noqa: PLC0415

    check_writable([html, junit, console])
    address = the_address(broker, ca, certificate, key, password_file)
    check_name("--lab", lab)
    axes = {"cpu": cpu, "machine": machine, "module": module, "platform": platform, "qemu": qemu, "smp": smp}
    if wanted:
        boots = disk is not None or pattern is not None or guest_agent or boot_seconds is not None
        if pool or host or grid_file or any(axes.values()) or options or boots or choose or name or not wait:
            raise UsageError(
                "--result only fetches: it goes with --timeout, --fail-on, --format, --html, --junit and --console"
            )
        for one in wanted:
            check_name("--result", one)
        topic, jobs = "", []
    else:
        axes, choose, fail_on = _with_file(grid_file, axes, choose, fail_on)
        topic = _topic(lab, pool, host)
        guest = _boot(disk, pattern, boot_seconds, guest_agent=guest_agent)
        jobs = grid.jobs(axes, choose, check_name("--id", name) if name else f"job-{_token()}", options, guest)
    judged = policy.parse(policy.DEFAULT if fail_on is None else fail_on)
    ledger = Ledger(jobs, wanted)
    if console and (len(ledger.ids) != 1 or not wait):
        raise UsageError("--console goes with one job that is waited for; --format json has the consoles of all")
    if console and jobs and jobs[0].boot is None:
        raise UsageError("--console: without --boot there is no guest that could write to one")
    if (html or junit) and not wait:
        raise UsageError(
            "--html and --junit need the results, for which --no-wait does not wait",
            hint="`tdx-cpuid submit --result ID --html FILE` makes them later",
        )
    submission = Submission(address, lab, topic, ledger, lambda text: click.echo(text, err=True))
    if not wait:
        left = _run_once(submission)
        for job in jobs:
            if job not in left:
                click.echo(job.id)
        if left:
            raise MissingError(f"{nobody(topic)}: {len(left)} of {len(jobs)} jobs were not sent")
        return 0
    started = time.monotonic()
    try:
        _wait(submission, ledger, judged, timeout)
    except KeyboardInterrupt:
        _say_how_to_come_back(ledger)
        raise
    return _conclude(ledger, judged, form, time.monotonic() - started, html, junit, console)


def _boot(disk: str | None, pattern: str | None, seconds: float | None, *, guest_agent: bool) -> Boot | None:
    """The guest to boot, if any. Raises UsageError for half a wish."""
    if disk is None:
        if pattern is not None or guest_agent or seconds is not None:
            raise UsageError("--until, --until-agent and --boot-seconds are about a guest: --boot DISK names it")
        return None
    if not pattern and not guest_agent:
        raise UsageError("--boot: what tells that the guest is up? --until PATTERN, --until-agent, or both")
    from qmp_client.lab.wire import Boot  # noqa: PLC0415

    return Boot(disk=disk, pattern=pattern or "", guest_agent=guest_agent, seconds=seconds)


def _with_file(
    grid_file: Path | None, axes: dict[str, tuple[str, ...]], choose: str | None, fail_on: str | None
) -> tuple[dict[str, tuple[str, ...]], str, str | None]:
    """Lay the options over the file."""
    given: dict[str, tuple[str, ...]] = {}
    if grid_file is not None:
        from qmp_client.matrix import grid_file as toml  # noqa: PLC0415

        given = toml.read(grid_file)
    named = {axis: axes.get(axis) or given.get(axis, ()) for axis in (*axes, *(set(given) - {"choose", "fail-on"}))}
    said = fail_on if fail_on is not None else next(iter(given.get("fail-on", ())), None)
    return named, choose or next(iter(given.get("choose", ())), "model"), said


def _topic(lab: str, pool: str | None, host: str | None) -> str:
    from qmp_client.lab import topics  # noqa: PLC0415
    from qmp_client.lab.names import check_name  # noqa: PLC0415

    if pool is not None and host is None:
        return topics.jobs(lab, check_name("--pool", pool))
    if host is not None and pool is None:
        return topics.host_jobs(lab, check_name("--host", host))
    raise UsageError("where to? either --pool or --host", hint="`tdx-cpuid watch --once` lists both")


def _token() -> str:
    import secrets  # noqa: PLC0415

    return secrets.token_hex(6)


def _run_once(submission: Submission) -> list[object]:
    import asyncio  # noqa: PLC0415

    return list(asyncio.run(submission.send()))


def _wait(submission: Submission, ledger: Ledger, judged: Policy, timeout: float | None) -> None:
    import asyncio  # noqa: PLC0415

    from qmp_client.lab.wanted import as_cell  # noqa: PLC0415
    from qmp_client.matrix.progress import progress_on  # noqa: PLC0415
    from qmp_client.report.console import many  # noqa: PLC0415
    from qmp_client.report.policy import Criteria  # noqa: PLC0415

    shown: set[str] = set()

    async def run() -> None:
        with progress_on(sys.stderr) as progress:
            progress.begin(len(ledger.ids), ())

            def changed() -> None:
                for job in set(ledger.results) - shown:
                    shown.add(job)
                    progress.step(as_cell(ledger.jobs.get(job), ledger.results[job], Criteria(judged)))
                progress.step(None)

            async with asyncio.timeout(timeout):
                await submission.run(changed)

    try:
        asyncio.run(run())
    except TimeoutError as error:
        _say_how_to_come_back(ledger)
        left, every = len(ledger.open), many(len(ledger.ids), "job")
        raise QemuError(f"{left} of {every} {'is' if left == 1 else 'are'} not done after {timeout:g} s") from error


def _say_how_to_come_back(ledger: Ledger) -> None:
    left = [job for job in ledger.open if job in ledger.progress or job not in ledger.jobs]
    if left:
        names = " ".join(f"--result {job}" for job in left[:3]) + (" ..." if len(left) > 3 else "")
        go_on = "1 job goes on" if len(left) == 1 else f"{len(left)} jobs go on"
        click.echo(f"{go_on}; `tdx-cpuid submit {names}` gets what becomes of them", err=True)


def _conclude(
    ledger: Ledger,
    judged: Policy,
    form: str,
    seconds: float,
    html: Path | None,
    junit: Path | None,
    console: Path | None,
) -> int:
    from qmp_client.lab.printable import printable  # noqa: PLC0415
    from qmp_client.lab.wanted import as_cell  # noqa: PLC0415
    from qmp_client.matrix.run import MatrixResult  # noqa: PLC0415
    from qmp_client.report.policy import Criteria  # noqa: PLC0415

    criteria = Criteria(judged)
    ended = [ledger.results[job] for job in ledger.ids if job in ledger.results]
    cells = [as_cell(ledger.jobs.get(result.job), result, criteria) for result in ended]
    measured_now = [result for result in ended if result.job in ledger.jobs]
    outcome = MatrixResult(cells, seconds, len(measured_now), len({result.host for result in ended}), "host")
    for rejection in ledger.rejections.values():
        click.echo(f"rejected by {rejection.host}: {rejection.job}: {printable(rejection.reason)}", err=True)
    if html:
        from qmp_client.page import of_result, render  # noqa: PLC0415

        write(html, render([of_result(cell) for cell in cells], judged))
    if junit:
        from qmp_client.matrix.junit import render as render_junit  # noqa: PLC0415

        write(junit, render_junit(cells, judged))
    if console and ended and ended[0].boot:
        write(console, ended[0].boot.console)
    elif console:
        click.echo(f"{console} is not written: the result has no console", err=True)
    if form == "json":
        from qmp_client.lab.wire import encode  # noqa: PLC0415

        sys.stdout.buffer.writelines(encode(result) + b"\n" for result in ended)
        sys.stdout.buffer.flush()
    elif len(ledger.ids) == 1 and ended and ended[0].report:
        from qmp_client.report.console import console_for  # noqa: PLC0415
        from qmp_client.report.table import show  # noqa: PLC0415

        click.echo(f"{ended[0].job} on {ended[0].host}, {ended[0].kvm} TDX, {ended[0].seconds:.1f} s")
        show(ended[0].report, criteria, console_for(sys.stdout))
        if ended[0].boot:
            from qmp_client.boot.show import sentence  # noqa: PLC0415

            click.echo(sentence(ended[0].boot))
    elif cells:
        from qmp_client.matrix.show import show as show_grid  # noqa: PLC0415

        show_grid(outcome, judged, sys.stdout)
    if outcome.exit_code == QemuError.exit_code:
        return outcome.exit_code
    return UsageError.exit_code if ledger.rejections else outcome.exit_code
