"""``tdx-cpuid agent``: this host takes jobs from a broker."""

from __future__ import annotations

import click

from qmp_client.cli.door import Door
from qmp_client.cli.lab_options import AT
from qmp_client.cli.types import FILE

HELP = """
Take jobs from a broker until SIGTERM or Ctrl-C, and tell when guests of this host see another CPUID.

An accepted job is stored before it is acknowledged, and its result until the broker has it.
"""
EXAMPLES = """
\b
Examples:
  tdx-cpuid agent --broker mqtt://localhost --pool emr --config agent.toml
  tdx-cpuid agent --broker mqtts://agent@broker.example --ca ca.pem --password-file secret --lab bay \\
      --pool emr --config /etc/tdx-cpuid/agent.toml
"""

command = Door(
    "agent",
    to="qmp_client.use_cases.agent",
    short_help="Take jobs for this host from a broker.",
    help=HELP,
    epilog=EXAMPLES,
    params=[
        AT,
        click.Option(["--pool"], required=True, help="The pool whose jobs this host takes."),
        click.Option(
            ["--config", "config_file"],
            required=True,
            type=FILE,
            help="What jobs may choose from (TOML; docs/lab/how-to.md).",
        ),
        click.Option(["--host"], help="This host's name in the lab.  [default: its host name]"),
        click.Option(["--state"], type=FILE, help="The SQLite file with its jobs and results."),
    ],
)
