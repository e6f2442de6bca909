"""``tdx-cpuid explain BIT``: what a bit is, who controls it, and how to turn it on or off."""

from __future__ import annotations

import click

from qmp_client.cli.completion import MODULE
from qmp_client.cli.door import Door

EXAMPLES = """
\b
Examples:
  tdx-cpuid explain waitpkg
  tdx-cpuid explain 7.0.ecx.5
  tdx-cpuid explain 0x80000008.eax
"""

command = Door(
    "explain",
    to="qmp_client.use_cases.explain",
    short_help="Say what a bit is and who controls it.",
    help="Explain a CPUID bit or field: by name, or by place as in 7.0.ecx.5; a register or leaf gives all its fields.",
    epilog=EXAMPLES,
    params=[
        click.Argument(["bit"]),
        click.Option(
            ["--module"],
            type=MODULE,
            help="Say how to turn it on or off with this module version.  [default: the newest]",
        ),
        click.Option(["--format", "form"], type=click.Choice(["table", "json"]), default="table", show_default=True),
    ],
)
