"""``tdx-cpuid watch``: a lab, live."""

from __future__ import annotations

import click

from qmp_client.cli.door import Door
from qmp_client.cli.lab_options import AT

HELP = """
Show hosts, jobs and drift of a lab until Ctrl-C.

Hosts are known at once; jobs and drift are seen as they happen. With --format json every message is a line.
"""
EXAMPLES = """
\b
Examples:
  tdx-cpuid watch --broker mqtt://localhost
  tdx-cpuid watch --once
  tdx-cpuid watch --format json | jq -r 'select(.topic | endswith("/events/drift")) | .message.likely'
"""

command = Door(
    "watch",
    to="qmp_client.use_cases.watch",
    help=HELP,
    epilog=EXAMPLES,
    params=[
        AT,
        click.Option(["--once"], is_flag=True, help="Show what the broker has kept, and end."),
        click.Option(["--format", "form"], type=click.Choice(["table", "json"]), default="table", show_default=True),
    ],
)
