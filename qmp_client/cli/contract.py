"""``tdx-cpuid contract OLD NEW``: what a module update does to VMMs and guests."""

from __future__ import annotations

import click

from qmp_client.cli.completion import MODULE, PLATFORM
from qmp_client.cli.door import Door
from qmp_client.cli.guest_options import GUEST

EXAMPLES = """
\b
Examples:
  tdx-cpuid contract 1.0 1.5.05
  tdx-cpuid contract 1.5.05 1.5.34 --platform granite-rapids --format markdown
"""

command = Door(
    "contract",
    to="qmp_client.use_cases.contract",
    short_help="Compare two versions of the TDX module.",
    help="""Compare two TDX module versions: every bit whose control changes, which guarantees that breaks, and what
    a guest sees no more with VMM and guest as they are.

    Exit status 1 when a guarantee is broken.
    """,
    epilog=EXAMPLES,
    params=[
        click.Argument(["old"], type=MODULE),
        click.Argument(["new"], type=MODULE),
        click.Option(
            ["--platform", "processor"], type=PLATFORM, help="Judge by what this processor has.  [default: any]"
        ),
        GUEST,
        click.Option(
            ["--format", "form"], type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True
        ),
        click.Option(["--all", "everything"], is_flag=True, help="Show every bit, with or without a name."),
    ],
)
