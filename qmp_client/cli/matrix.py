"""``tdx-cpuid matrix``: many TDs at once, and what became of each."""

from __future__ import annotations

import click

from qmp_client.cli.door import Door
from qmp_client.cli.grid_options import GRID, RUNNING
from qmp_client.cli.policy_options import fail_on
from qmp_client.cli.types import FILE

EXAMPLES = """
\b
Examples:
  tdx-cpuid matrix --cpu host --machine 'pc-q35-10.*' --platform all
  tdx-cpuid matrix --cpu 'SapphireRapids*' --module all --output today.jsonl --markdown today.md
  tdx-cpuid matrix --qemu before/qemu-system-x86_64 --qemu after/qemu-system-x86_64 --machine all
  tdx-cpuid matrix --file grid.toml --junit matrix.xml --html matrix.html
"""

command = Door(
    "matrix",
    to="qmp_client.use_cases.matrix",
    short_help="Negotiate a grid of TDs side by side.",
    help="""Negotiate a grid of TDs on the simulated KVM, side by side, and say what became of each.

    Patterns are as in a shell, 'SapphireRapids*' or 'EPYC*,-avx512f'; '!PATTERN' leaves out what words before it
    brought in.

    Exit status 1 when a cell does not meet the policy, 4 when a cell failed. An interrupted run goes on from --output.
    """,
    epilog=EXAMPLES,
    params=[
        GRID,
        click.Option(
            ["--qemu"], multiple=True, help="The QEMU to run; repeatable.  [default: the one of scripts/build-qemu]"
        ),
        click.Option(
            ["--choose"], help="model, maximal, minimal, or a file with exactly these bits.  [default: model]"
        ),
        fail_on(),
        RUNNING,
        click.Option(["--output"], type=FILE, help="Keep results as JSON Lines; what it has is not rerun."),
        click.Option(["--junit"], type=FILE, help="Write JUnit XML."),
        click.Option(["--markdown"], type=FILE, help="Write Markdown."),
        click.Option(["--html"], type=FILE, help="Write one self-contained HTML page."),
    ],
)
