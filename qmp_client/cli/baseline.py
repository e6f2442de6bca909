"""``tdx-cpuid baseline save|check``: what guests see, kept in a repository."""

from __future__ import annotations

import click

from qmp_client.cli.door import Door
from qmp_client.cli.grid_options import GRID, RUNNING
from qmp_client.cli.types import FILE

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
NAME = click.Argument(["name"])
QEMU = click.Option(["--qemu"], help="The QEMU to run.  [default: the one that scripts/build-qemu built]")
FOLDER = click.Option(["--folder"], type=FILE, default="baselines", show_default=True)

save = Door(
    "save",
    to="qmp_client.use_cases.baseline_save",
    short_help="Run a grid and write what its guests see.",
    help="""Run a grid and write what its guests see to FOLDER/NAME.txt; say what that changes there.

    Nothing is written unless every TD could be built.
    """,
    epilog=SAVE_EXAMPLES,
    params=[
        NAME,
        GRID,
        QEMU,
        click.Option(
            ["--choose"],
            type=click.Choice(["model", "maximal", "minimal"]),
            help="What to choose.  [default: model]",
        ),
        RUNNING,
        FOLDER,
    ],
)
check = Door(
    "check",
    to="qmp_client.use_cases.baseline_check",
    short_help="Run the grid again and say what changed.",
    help="""Run a baseline's grid again and say what guests see that they did not see before.

    Exit status 1 when a machine type with a version changed (--strict: any), 4 when a TD could not be built.
    """,
    epilog=CHECK_EXAMPLES,
    params=[
        NAME,
        QEMU,
        RUNNING,
        FOLDER,
        click.Option(["--strict"], is_flag=True, help="Machine types without a version must not change either."),
        click.Option(["--junit"], type=FILE, help="Write JUnit XML."),
        click.Option(["--markdown"], type=FILE, help="Write Markdown."),
    ],
)
command = click.Group(
    "baseline",
    commands=[save, check],
    short_help="Keep what guests see in a file, and notice changes.",
    help="Keep the CPUID that guests see as a text file in a repository, and notice when it changes.",
    epilog=EXAMPLES,
)
