"""``tdx-cpuid predict``: the report of a negotiation, without QEMU."""

from __future__ import annotations

import click

from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM
from qmp_client.cli.completion import MODULE, PLATFORM
from qmp_client.cli.door import Door
from qmp_client.cli.guest_options import GUEST
from qmp_client.cli.policy_options import fail_on
from qmp_client.cli.wish_options import WISH

EXAMPLES = """
\b
Examples:
  tdx-cpuid predict --cpu SapphireRapids-v3 --platform granite-rapids
  tdx-cpuid predict --cpu host,-avx512f --module 1.0 --all

It is exact for every model of QEMU 10.2 with any features, on a simulated upstream KVM; what is not modelled (Hyper-V
features, a vendor of one's own) is refused, and `negotiate` asks the real QEMU.
"""

command = Door(
    "predict",
    to="qmp_client.use_cases.predict",
    short_help="Say what negotiate would, without QEMU.",
    help="Say what `negotiate` would, without QEMU: what a CPU model becomes in a TD, and who decides.",
    epilog=EXAMPLES,
    params=[
        click.Option(["--cpu"], default="host", show_default=True, help="QEMU's -cpu: a model and its features."),
        click.Option(["--smp"], default="1", show_default=True, help="QEMU's -smp."),
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
        fail_on(),
        click.Option(["--format", "form"], type=click.Choice(["table", "json"]), default="table", show_default=True),
        click.Option(["--all", "everything"], is_flag=True, help="Show every field, not only deviations."),
    ],
)
