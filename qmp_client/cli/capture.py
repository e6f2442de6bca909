"""``tdx-cpuid capture``: write down what a TDX host offers, to simulate it elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from qmp_client.cli.door import Door

EXAMPLES = """
\b
Examples:
  tdx-cpuid capture host.json                                        (on the TDX host; needs only /dev/kvm)
  tdx-cpuid negotiate --platform host.json --module host.json        (anywhere)
  tdx-cpuid sim --module 1.5.05 -- tdx-cpuid capture try.json        (without TDX, to see what it looks like)
"""

command = Door(
    "capture",
    to="qmp_client.use_cases.capture",
    short_help="Write down what this TDX host offers, to simulate it.",
    help="""Write this host's processor, KVM and TDX module into FILE (standard output without one).

    Without TDX it says in five lines what is missing, and the exit status is 3.
    """,
    epilog=EXAMPLES,
    params=[click.Argument(["file"], type=click.Path(path_type=Path, dir_okay=False), required=False)],
)
