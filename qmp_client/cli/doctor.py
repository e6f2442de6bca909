"""``tdx-cpuid doctor``: what this machine has and lacks for each command."""

from __future__ import annotations

import click

from qmp_client.cli.door import Door

EXAMPLES = """
\b
Examples:
  tdx-cpuid doctor
  tdx-cpuid doctor --format json
"""

command = Door(
    "doctor",
    to="qmp_client.use_cases.doctor",
    short_help="Say what this machine has and lacks.",
    help="""Say what this machine has and lacks for each command, with the command that mends it.

    Exit status 3 when negotiate cannot work here.
    """,
    epilog=EXAMPLES,
    params=[
        click.Option(["--format", "form"], type=click.Choice(["table", "json"]), default="table", show_default=True),
    ],
)
