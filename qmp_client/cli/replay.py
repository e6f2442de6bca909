"""``tdx-cpuid replay FILE``: a recorded conversation, and what became of each TD in it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

EXAMPLES = """
\b
Examples:
  tdx-cpuid sim --record talk.jsonl -- qemu-system-x86_64 -accel kvm ...
  tdx-cpuid replay talk.jsonl
  tdx-cpuid replay talk.jsonl --no-calls --fail-on forced-off
  tdx-cpuid replay talk.jsonl --format json | jq '.calls[] | select(.errno != "")'
"""


@click.command("replay", short_help="Show a recorded KVM conversation and reconcile it.", epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--calls/--no-calls", default=True, show_default=True, help="Show every KVM call.")
@click.option("--fail-on", default="none", show_default=True, help="Verdicts that make the exit status 1.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(file: Path, calls: bool, fail_on: str, form: str) -> int:
    """Show what a VMM and the simulated KVM said to each other, and reconcile each TD in it.

    What KVM_TDX_INIT_VM was asked for is held against what KVM_TDX_GET_CPUID gave.
    """
    from plugin.tdx_module import UnknownName, load_host  # noqa: PLC0415
    from qmp_client.replay.read import read  # noqa: PLC0415
    from qmp_client.replay.td import Story, stories  # noqa: PLC0415
    from qmp_client.report.policy import Criteria, parse  # noqa: PLC0415

    criteria = Criteria(parse(fail_on))
    talk = read(file)
    try:
        host = load_host(talk.head.module, talk.head.platform)
    except UnknownName:
        host = None
    told = stories(talk, host)
    if form == "json":
        import msgspec  # noqa: PLC0415

        answer = {"head": talk.head, "calls": talk.calls if calls else [], "cut": talk.cut, "tds": told}
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(answer), indent=2) + b"\n")
        sys.stdout.buffer.flush()
    else:
        from qmp_client.replay.show import show  # noqa: PLC0415

        show(talk, told, criteria.policy, sys.stdout, calls=calls)
    return max((criteria.exit_code(story.lines) for story in told if isinstance(story, Story)), default=0)
