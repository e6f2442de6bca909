"""``tdx-cpuid replay FILE``: a recorded conversation, and what became of each TD in it."""

from __future__ import annotations

import click

from qmp_client.cli.door import Door
from qmp_client.cli.guest_options import GUEST
from qmp_client.cli.policy_options import fail_on
from qmp_client.cli.types import FILE

EXAMPLES = """
\b
Examples:
  tdx-cpuid sim --record talk.jsonl -- qemu-system-x86_64 -accel kvm ...
  tdx-cpuid replay talk.jsonl
  tdx-cpuid replay talk.jsonl --no-calls --fail-on forced-off
  tdx-cpuid replay talk.jsonl --format json | jq '.calls[] | select(.errno != "")'
"""

command = Door(
    "replay",
    to="qmp_client.use_cases.replay",
    short_help="Show a recorded KVM conversation and reconcile it.",
    help="""Show what a VMM and the simulated KVM said to each other, and reconcile each TD in it.

    What KVM_TDX_INIT_VM was asked for is held against what KVM_TDX_GET_CPUID gave.
    """,
    epilog=EXAMPLES,
    params=[
        click.Argument(["file"], type=FILE),
        click.Option(["--calls/--no-calls"], default=True, show_default=True, help="Show every KVM call."),
        GUEST,
        fail_on("none"),
        click.Option(["--format", "form"], type=click.Choice(["table", "json"]), default="table", show_default=True),
    ],
)
