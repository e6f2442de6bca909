"""``tdx-cpuid matrix``: many TDs at once, and what became of each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qmp_client.cli.grid import asked, cells_of, default_jobs, grid_options, run_options
from qmp_client.errors import UsageError
from qmp_client.files import check_writable, write
from qmp_client.qemu.firmware import find_firmware

if TYPE_CHECKING:
    from qmp_client.matrix.run import MatrixResult, Plan
    from qmp_client.report.policy import Policy

EXAMPLES = """
\b
Examples:
  tdx-cpuid matrix --cpu host --machine 'pc-q35-10.*' --platform all
  tdx-cpuid matrix --cpu 'SapphireRapids*' --module all --output today.jsonl --markdown today.md
  tdx-cpuid matrix --qemu before/qemu-system-x86_64 --qemu after/qemu-system-x86_64 --machine all
  tdx-cpuid matrix --file grid.toml --junit matrix.xml --html matrix.html
"""


@click.command("matrix", short_help="Negotiate a grid of TDs side by side.", epilog=EXAMPLES)
@grid_options
@click.option("--qemu", multiple=True, help="The QEMU to run; repeatable.  [default: the one of scripts/build-qemu]")
@click.option("--choose", help="model, maximal, minimal, or a file with exactly these bits.  [default: model]")
@click.option("--fail-on", help="Verdicts that make the exit status 1, or none.")
@run_options
@click.option("--output", type=click.Path(path_type=Path), help="Keep results as JSON Lines; what it has is not rerun.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write Markdown.")
@click.option("--html", type=click.Path(path_type=Path), help="Write one self-contained HTML page.")
def command(
    grid_file: Path | None,
    cpu: tuple[str, ...],
    machine: tuple[str, ...],
    module: tuple[str, ...],
    platform: tuple[str, ...],
    smp: tuple[str, ...],
    kvm: tuple[str, ...],
    qemu: tuple[str, ...],
    choose: str | None,
    fail_on: str | None,
    firmware_file: Path | None,
    jobs: int | None,
    timeout: float,
    output: Path | None,
    junit: Path | None,
    markdown: Path | None,
    html: Path | None,
) -> int:
    """Negotiate a grid of TDs on the simulated KVM, side by side, and say what became of each.

    Patterns are as in a shell, 'SapphireRapids*' or 'EPYC*,-avx512f'; '!PATTERN' leaves out what words before it
    brought in.

    Exit status 1 when a cell does not meet the policy, 4 when a cell failed. An interrupted run goes on from --output.
    """
    from qmp_client.matrix.run import Plan  # noqa: PLC0415
    from qmp_client.negotiation.wish import understand  # noqa: PLC0415
    from qmp_client.report import policy  # noqa: PLC0415

    axes = {"cpu": cpu, "machine": machine, "module": module, "platform": platform, "smp": smp, "kvm": kvm}
    grid = asked(grid_file, axes | {"qemu": qemu}, choose, fail_on)
    judged = policy.parse(policy.DEFAULT if grid.fail_on is None else grid.fail_on)
    check_writable([output, junit, markdown, html])
    plan = Plan(
        cells=cells_of(grid.axes),
        firmware=find_firmware(firmware_file),
        wish=understand(grid.choose, None, None),
        policy=judged,
        jobs=jobs or default_jobs(),
        timeout=timeout,
        output=output,
    )
    outcome = _run(plan)
    from qmp_client.matrix.show import show  # noqa: PLC0415

    unwritten = _write(outcome, judged, junit, markdown, html)
    show(outcome, judged, sys.stdout)
    if unwritten:
        raise unwritten[0]
    return outcome.exit_code


def _run(plan: Plan) -> MatrixResult:
    from qmp_client.matrix.progress import progress_on  # noqa: PLC0415
    from qmp_client.matrix.run import run  # noqa: PLC0415

    try:
        return run(plan, progress_on(sys.stderr))
    except KeyboardInterrupt:
        kept = f"the same command goes on from {plan.output}" if plan.output else "--output FILE would have kept them"
        click.echo(f"results so far: {kept}", err=True)
        raise


def _write(
    outcome: MatrixResult, judged: Policy, junit: Path | None, markdown: Path | None, html: Path | None
) -> list[UsageError]:
    """Write every report; return what is to be said of those that cannot be written."""
    documents: list[tuple[Path, Callable[[], str | bytes]]] = []
    if junit:
        from qmp_client.matrix.junit import render as as_junit  # noqa: PLC0415

        documents.append((junit, lambda: as_junit(outcome.results, judged)))
    if markdown:
        from qmp_client.matrix.show import markdown as as_markdown  # noqa: PLC0415

        documents.append((markdown, lambda: as_markdown(outcome, judged)))
    if html:
        from qmp_client.page import of_result, render  # noqa: PLC0415

        documents.append((html, lambda: render([of_result(result) for result in outcome.results], judged)))
    wrong: list[UsageError] = []
    for path, document in documents:
        try:
            write(path, document())
        except UsageError as error:
            wrong.append(error)
    return wrong
