"""``tdx-cpuid drain``: a host takes no more jobs of its pool, or takes them again."""

from __future__ import annotations

import click

from qmp_client.cli.door import Door
from qmp_client.cli.lab_options import AT
from qmp_client.cli.types import POSITIVE

HELP = """
Take a host out of its pool and wait until it has finished what it accepted. It stays out until --undo.

A host that is away learns of it when it comes back; jobs that name the host still run.
"""
EXAMPLES = """
\b
Examples:
  tdx-cpuid drain --broker mqtt://localhost emr-07      # returns when its jobs are done
  tdx-cpuid drain emr-07 --undo
"""

command = Door(
    "drain",
    to="qmp_client.use_cases.drain",
    short_help="Let a host finish its jobs and take no more.",
    help=HELP,
    epilog=EXAMPLES,
    params=[
        AT,
        click.Argument(["host"]),
        click.Option(["--undo"], is_flag=True, help="Let the host take jobs again."),
        click.Option(["--wait/--no-wait"], default=True, help="--no-wait says it and leaves."),
        click.Option(
            ["--timeout"],
            type=POSITIVE,
            help="Seconds to wait.  [default: no limit]",
        ),
    ],
)
