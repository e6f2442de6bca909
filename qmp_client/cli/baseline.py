"""``tdx-cpuid baseline save|check``: what guests see, kept in a repository."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qmp_client.cli.grid import asked, cells_of, default_jobs, grid_options, run_options
from qmp_client.errors import MissingError, QemuError, UsageError
from qmp_client.files import check_folder, check_writable, write
from qmp_client.qemu.firmware import find_firmware

if TYPE_CHECKING:
    from qmp_client.baseline.guest import Guest, Td
    from qmp_client.baseline.text import Baseline
    from qmp_client.matrix.result import Cell, Result

EXAMPLES = """
\b
Examples:
  tdx-cpuid baseline save q35 --cpu 'SapphireRapids*' --machine 'pc-q35-10.*' --machine q35
  tdx-cpuid baseline check q35
  tdx-cpuid baseline check q35 --qemu build/qemu-system-x86_64 --junit baseline.xml
"""
SAVE_EXAMPLES = """
\b
Examples:
  tdx-cpuid baseline save q35 --cpu 'SapphireRapids*' --machine 'pc-q35-10.*' --machine q35
  tdx-cpuid baseline save server --file grid.toml --folder tests/tdx
"""
CHECK_EXAMPLES = """
\b
Examples:
  tdx-cpuid baseline check q35
  tdx-cpuid baseline check q35 --qemu build/qemu-system-x86_64 --junit baseline.xml
  tdx-cpuid baseline check q35 --strict --markdown baseline.md
"""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@click.group("baseline", short_help="Keep what guests see in a file, and notice changes.", epilog=EXAMPLES)
def command() -> None:
    """Keep the CPUID that guests see as a text file in a repository, and notice when it changes."""


@command.command("save", short_help="Run a grid and write what its guests see.", epilog=SAVE_EXAMPLES)
@click.argument("name")
@grid_options
@click.option("--qemu", help="The QEMU to run.  [default: the one that scripts/build-qemu built]")
@click.option("--choose", type=click.Choice(["model", "maximal", "minimal"]), help="What to choose.  [default: model]")
@run_options
@click.option("--folder", type=click.Path(path_type=Path), default="baselines", show_default=True)
def save(
    name: str,
    grid_file: Path | None,
    cpu: tuple[str, ...],
    machine: tuple[str, ...],
    module: tuple[str, ...],
    platform: tuple[str, ...],
    smp: tuple[str, ...],
    kvm: tuple[str, ...],
    qemu: str | None,
    choose: str | None,
    firmware_file: Path | None,
    jobs: int | None,
    timeout: float,
    folder: Path,
) -> int:
    """Run a grid and write what its guests see to FOLDER/NAME.txt; say what that changes there.

    Nothing is written unless every TD could be built.
    """
    from qmp_client.baseline.text import Baseline, render  # noqa: PLC0415
    from qmp_client.report.console import many  # noqa: PLC0415

    path = _path(folder, name)
    axes = {"cpu": cpu, "machine": machine, "module": module, "platform": platform, "smp": smp, "kvm": kvm}
    grid = asked(grid_file, axes | {"qemu": (qemu,) if qemu else ()}, choose)
    if grid.choose not in ("model", "maximal", "minimal"):
        raise UsageError(f"a baseline cannot depend on the file {grid.choose}", hint="choose model, maximal or minimal")
    if len(grid.axes["qemu"]) > 1:
        raise UsageError("a baseline is one QEMU's", hint="save one, and check it with the others")
    cells = cells_of(grid.axes)
    before = _read(path) if path.exists() else None
    check_folder(folder)
    check_writable([path] if folder.exists() else [])
    results = _results(cells, grid.choose, firmware_file, jobs, timeout)
    if failed := _failed(results):
        raise QemuError(f"{len(failed)} of {len(results)} TDs cannot be built, so nothing was saved", quoted=failed)
    baseline = Baseline(_version(results), grid.choose, _guests(results))
    text = render(baseline)
    folder.mkdir(parents=True, exist_ok=True)
    write(path, text)
    if before is not None:
        _show_changes(name, before, baseline)
    in_full = text.count("\nmachines ")
    click.echo(f"{path}: {many(len(results), 'TD')}, {in_full} in full, {len(text.splitlines())} lines")
    return 0


@command.command("check", short_help="Run the grid again and say what changed.", epilog=CHECK_EXAMPLES)
@click.argument("name")
@click.option("--qemu", help="The QEMU to run.  [default: the one that scripts/build-qemu built]")
@run_options
@click.option("--folder", type=click.Path(path_type=Path), default="baselines", show_default=True)
@click.option("--strict", is_flag=True, help="Machine types without a version must not change either.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write Markdown.")
def check(
    name: str,
    qemu: str | None,
    firmware_file: Path | None,
    jobs: int | None,
    timeout: float,
    folder: Path,
    strict: bool,
    junit: Path | None,
    markdown: Path | None,
) -> int:
    """Run a baseline's grid again and say what guests see that they did not see before.

    Exit status 1 when a machine type with a version changed (--strict: any), 4 when a TD could not be built.
    """
    from qmp_client.baseline import show  # noqa: PLC0415
    from qmp_client.baseline.compare import compare  # noqa: PLC0415

    path = _path(folder, name)
    if not path.exists():
        raise MissingError(f"there is no baseline {path}", hint=f"tdx-cpuid baseline save {name} writes it")
    check_writable([junit, markdown])
    before = _read(path)
    cells = _cells(before, qemu)
    results = _results(cells, before.choose, firmware_file, jobs, timeout)
    found = show.Found(
        name=name,
        saved_with=before.qemu_version,
        checked_with=_version(results),
        machines=compare(before, _guests(results)),
        failed=_failed(results),
        notes=_notes(before, cells),
        strict=strict,
    )
    if junit:
        write(junit, show.junit(found))
    if markdown:
        write(markdown, show.markdown(found))
    show.show(found, sys.stdout)
    return found.exit_code


def _path(folder: Path, name: str) -> Path:
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a baseline", hint="letters, digits, dots, dashes and underscores")
    return folder / f"{name}.txt"


def _read(path: Path) -> Baseline:
    from qmp_client.baseline.text import read  # noqa: PLC0415

    try:
        return read(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UsageError(f"the baseline {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text, and so no baseline", hint="tdx-cpuid baseline save writes one") from error


def _cells(baseline: Baseline, qemu: str | None) -> list[Cell]:
    """The baseline's grid, on this QEMU."""
    found: list[Cell] = []
    for td, guests in baseline.tds.items():
        axes = {axis: (value,) for axis, value in td._asdict().items()}
        found += cells_of(axes | {"machine": tuple(guests), "qemu": (qemu,) if qemu else ()})
    return found


def _results(
    cells: Sequence[Cell], choose: str, firmware_file: Path | None, jobs: int | None, timeout: float
) -> list[Result]:
    from qmp_client.matrix.progress import progress_on  # noqa: PLC0415
    from qmp_client.matrix.run import Plan, run  # noqa: PLC0415
    from qmp_client.negotiation.wish import understand  # noqa: PLC0415
    from qmp_client.report import policy  # noqa: PLC0415

    nothing = policy.parse(policy.NONE)
    wish = understand(choose, None, None)
    plan = Plan(cells, find_firmware(firmware_file), wish, nothing, jobs or default_jobs(), timeout)
    return run(plan, progress_on(sys.stderr)).results


def _guests(results: Sequence[Result]) -> dict[Td, dict[str, Guest]]:
    from qmp_client.baseline.guest import Td, guest  # noqa: PLC0415

    found: dict[Td, dict[str, Guest]] = {}
    for result in results:
        cell = result.cell
        if result.report is not None:
            td = Td(cell.kvm, cell.module, cell.platform, cell.smp, cell.cpu)
            found.setdefault(td, {})[cell.machine] = guest(result.report)
    return found


def _failed(results: Sequence[Result]) -> list[str]:
    from qmp_client.matrix.progress import name  # noqa: PLC0415

    return [f"{name(result.cell)}: {result.error}" for result in results if result.report is None]


def _version(results: Sequence[Result]) -> str:
    return next((result.report.environment.qemu_version for result in results if result.report), "")


def _notes(before: Baseline, cells: Sequence[Cell]) -> list[str]:
    """Say which newer machine types this QEMU has that the baseline does not know yet."""
    from qmp_client.baseline.machine_type import newer  # noqa: PLC0415
    from qmp_client.matrix.offer import machine_types  # noqa: PLC0415

    known = {machine for guests in before.tds.values() for machine in guests}
    new = newer(machine_types(Path(cells[0].qemu)), sorted(known)) if cells else []
    return [f"this QEMU has {', '.join(new)}, which the baseline does not cover"] if new else []


def _show_changes(name: str, before: Baseline, now: Baseline) -> None:
    from qmp_client.baseline import show  # noqa: PLC0415
    from qmp_client.baseline.compare import compare  # noqa: PLC0415

    machines = [machine for machine in compare(before, now.tds) if machine.groups]
    if machines:
        found = show.Found(name, before.qemu_version, now.qemu_version, machines, [], [], strict=False)
        for machine in machines:
            click.echo(show.heading(found, machine))
