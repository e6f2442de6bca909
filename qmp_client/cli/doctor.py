"""``tdx-cpuid doctor``: what this machine has and lacks for each command."""

from __future__ import annotations

import sys

import click

EXAMPLES = """
\b
Examples:
  tdx-cpuid doctor
  tdx-cpuid doctor --format json
"""

MISSING = 3


@click.command("doctor", short_help="Say what this machine has and lacks.", epilog=EXAMPLES)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(form: str) -> int:
    """Say what this machine has and lacks for each command, with the command that mends it.

    Exit status 3 when negotiate cannot work here.
    """
    from qmp_client.doctor.checks import examine  # noqa: PLC0415
    from qmp_client.doctor.finding import diagnose  # noqa: PLC0415

    diagnosis = diagnose(examine())
    if form == "json":
        import msgspec  # noqa: PLC0415

        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(diagnosis), indent=2) + b"\n")
        sys.stdout.buffer.flush()
    else:
        from qmp_client.doctor.show import show  # noqa: PLC0415

        show(diagnosis, sys.stdout)
    return 0 if diagnosis.able else MISSING
