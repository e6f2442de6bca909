"""The options of every command that talks to the lab's broker."""

from __future__ import annotations

import click

from qmp_client.cli.door import Group
from qmp_client.cli.types import FILE

AT = Group(
    "at",
    "qmp_client.lab.address:At",
    (
        click.Option(["--broker"], required=True, envvar="TDX_CPUID_BROKER", help="mqtt[s]://[USER@]HOST[:PORT]"),
        click.Option(
            ["--lab"], default="lab", show_default=True, envvar="TDX_CPUID_LAB", help="The lab's name in topics."
        ),
        click.Option(
            ["--ca"], type=FILE, help="Certificates that the broker's is checked against.  [default: the system's]"
        ),
        click.Option(["--certificate"], type=FILE, help="This client's certificate."),
        click.Option(["--key"], type=FILE, help="This client's private key."),
        click.Option(["--password-file"], type=FILE, help="A file with the password of USER."),
        click.Option(
            ["--insecure"],
            is_flag=True,
            help="Let the password go to another host over mqtt://, where all can read it.",
        ),
    ),
)
"""Where the lab is."""
