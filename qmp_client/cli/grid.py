"""The options that describe a grid, shared by ``matrix`` and ``baseline``; and from them to cells."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM, DIALECTS
from qmp_client.cli.completion import MODULE, PLATFORM
from qmp_client.errors import MissingError, UsageError
from qmp_client.qemu import locate

if TYPE_CHECKING:
    from qmp_client.matrix.result import Cell

POSITIVE = click.FloatRange(min=0, min_open=True)
F = TypeVar("F", bound=Callable[..., Any])

DEFAULTS = {
    "cpu": ("host",),
    "machine": ("q35",),
    "module": (DEFAULT_MODULE,),
    "platform": (DEFAULT_PLATFORM,),
    "smp": ("1",),
    "kvm": (DIALECTS[0],),
}


def grid_options(function: F) -> F:
    """Add the axes of a grid, and the file that has them."""
    several = "repeatable; all, or a pattern"
    for option in reversed(
        [
            click.option("--file", "grid_file", type=click.Path(path_type=Path), help="A TOML file with these."),
            click.option("--cpu", multiple=True, help=f"QEMU's -cpu; {several}.  [default: host]"),
            click.option("--machine", multiple=True, help=f"QEMU's machine type; {several}.  [default: q35]"),
            click.option(
                "--module", type=MODULE, multiple=True, help=f"TDX module; {several}.  [default: {DEFAULT_MODULE}]"
            ),
            click.option(
                "--platform", type=PLATFORM, multiple=True, help=f"Platform; {several}.  [default: {DEFAULT_PLATFORM}]"
            ),
            click.option("--smp", multiple=True, help="QEMU's -smp; repeatable.  [default: 1]"),
            click.option(
                "--kvm", multiple=True, help="upstream, proposal or all: KVM's interface.  [default: upstream]"
            ),
        ]
    ):
        function = option(function)
    return function


def run_options(function: F) -> F:
    """Add how cells are run."""
    for option in reversed(
        [
            click.option("--firmware", "firmware_file", type=click.Path(path_type=Path), help="The TDVF image."),
            click.option("--jobs", type=click.IntRange(min=1), help="How many at once.  [default: one for each core]"),
            click.option(
                "--timeout", type=POSITIVE, default=30.0, show_default=True, help="Seconds for each step of a cell."
            ),
        ]
    ):
        function = option(function)
    return function


class Asked(NamedTuple):
    """A grid as the options and the file have it together."""

    axes: Mapping[str, tuple[str, ...]]
    choose: str
    fail_on: str | None


def asked(
    grid_file: Path | None,
    axes: Mapping[str, tuple[str, ...]],
    choose: str | None = None,
    fail_on: str | None = None,
) -> Asked:
    """Lay options over the file, and the file over the defaults. Raises UsageError for a file that is no grid."""
    given: dict[str, tuple[str, ...]] = {}
    if grid_file is not None:
        from qmp_client.matrix import grid_file as toml  # noqa: PLC0415

        given = toml.read(grid_file)
    together = {axis: words or given.get(axis, DEFAULTS.get(axis, ())) for axis, words in axes.items()}
    return Asked(
        together,
        choose or "".join(given.get("choose", ("model",))),
        fail_on if fail_on is not None else next(iter(given.get("fail-on", ())), None),
    )


def cells_of(axes: Mapping[str, tuple[str, ...]]) -> list[Cell]:
    """The cells of a grid, for each of its QEMUs; every name is checked before anything is started.

    Raises UsageError for names that do not exist and patterns that match nothing.
    """
    from qmp_client.matrix.grid import Grid, cells, is_pattern  # noqa: PLC0415
    from qmp_client.matrix.offer import of  # noqa: PLC0415

    grid = Grid(*(axes[axis] for axis in Grid._fields))
    found: list[Cell] = []
    for given in axes["qemu"] or (None,):
        qemu = locate.find_qemu(given)
        offer = of(qemu, cpu=any(map(is_pattern, grid.cpu)), machine=any(map(is_pattern, grid.machine)))
        found += cells(grid, str(qemu), offer)
    _check_names(found)
    return list(dict.fromkeys(found))


def default_jobs() -> int:
    """One job for each core that this process may use."""
    return len(os.sched_getaffinity(0))


def _check_names(found: list[Cell]) -> None:
    from plugin.kvm.host import MISSING, HostRefused, find_host  # noqa: PLC0415
    from plugin.kvm.launch import unknown_name  # noqa: PLC0415

    if any(cell.platform == "native" for cell in found):
        try:
            find_host(found[0].module, "native")
        except HostRefused as error:
            if error.status == MISSING:
                raise MissingError(str(error), hint=error.hint) from error
    for module, platform, kvm in dict.fromkeys((cell.module, cell.platform, cell.kvm) for cell in found):
        if problem := unknown_name(module, platform, kvm, ()):
            raise UsageError(problem)
