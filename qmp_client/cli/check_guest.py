"""``tdx-cpuid check-guest DUMP``: a real guest's CPUID, held against what is predicted for it."""

from __future__ import annotations

import click

from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM
from qmp_client.cli.completion import MODULE, PLATFORM
from qmp_client.cli.door import Door
from qmp_client.cli.guest_options import GUEST
from qmp_client.cli.types import FILE
from qmp_client.cli.wish_options import WISH

EXAMPLES = """
\b
Examples:
  cat /proc/cpuinfo > cpuinfo.txt                  (in the guest; or: cpuid -1 -r > cpuid.txt)
  tdx-cpuid check-guest cpuinfo.txt --module 1.5.05 --platform emerald-rapids
  tdx-cpuid check-guest cpuid.txt --cpu SapphireRapids --all
"""

command = Door(
    "check-guest",
    to="qmp_client.use_cases.check_guest",
    short_help="Hold a real guest's CPUID against the prediction.",
    help="""Hold what a real TD's guest showed of its CPUID against the prediction.

    DUMP is the guest's /proc/cpuinfo or the flags of it, or what `cpuid -r` or `cpuid -1 -r` printed there. It says
    what contradicts, what differs for a known reason (Linux clears some flags itself), what another VMM may have chosen
    so (with --cpu that contradicts, too), and what the dump cannot tell.

    Exit status 1 when something contradicts.
    """,
    epilog=EXAMPLES,
    params=[
        click.Argument(["dump"], type=FILE),
        click.Option(["--cpu"], help="QEMU's -cpu of the TD.  [default: any choice that a VMM may make]"),
        click.Option(["--smp"], default="1", show_default=True, help="QEMU's -smp of the TD."),
        click.Option(
            ["--module"],
            type=MODULE,
            default=DEFAULT_MODULE,
            show_default=True,
            help="The version of the TDX module.",
        ),
        click.Option(
            ["--platform"],
            type=PLATFORM,
            default=DEFAULT_PLATFORM,
            show_default=True,
            help="The platform: a name, native, or a JSON file.",
        ),
        *WISH,
        GUEST,
        click.Option(["--format", "form"], type=click.Choice(["table", "json"]), default="table", show_default=True),
        click.Option(["--all", "everything"], is_flag=True, help="Show what agrees and what is no evidence, too."),
    ],
)
