"""``tdx-cpuid predict``: the report of a negotiation, without QEMU."""

from __future__ import annotations

import sys

import click

from plugin.kvm.host import MISSING, HostRefused, find_host
from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM
from qmp_client.cli.completion import MODULE, PLATFORM
from qmp_client.errors import MissingError, UsageError
from qmp_client.negotiation.wish import understand
from qmp_client.predict.predict import predict
from qmp_client.report.console import console_for
from qmp_client.report.model import to_json
from qmp_client.report.policy import DEFAULT, Criteria, parse
from qmp_client.report.table import show

EXAMPLES = """
\b
Examples:
  tdx-cpuid predict --cpu SapphireRapids-v3 --platform granite-rapids
  tdx-cpuid predict --cpu host,-avx512f --module 1.0 --all

It is exact for every model of QEMU 10.2 with any features, on a simulated upstream KVM; what is not modelled (Hyper-V
features, a vendor of one's own) is refused, and `negotiate` asks the real QEMU.
"""


@click.command("predict", short_help="Say what negotiate would, without QEMU.", epilog=EXAMPLES)
@click.option("--cpu", default="host", show_default=True, help="QEMU's -cpu: a model and its features.")
@click.option("--smp", default="1", show_default=True, help="QEMU's -smp.")
@click.option("--module", type=MODULE, default=DEFAULT_MODULE, show_default=True, help="The version of the TDX module.")
@click.option(
    "--platform",
    type=PLATFORM,
    default=DEFAULT_PLATFORM,
    show_default=True,
    help="The platform: a name, native, or a JSON file.",
)
@click.option(
    "--choose", default="model", show_default=True, help="model, maximal, minimal, or a file with exactly these bits."
)
@click.option("--attributes", help="The TD's 64-bit ATTRIBUTES, instead of what follows from the model.")
@click.option("--xfam", help="The TD's 64-bit XFAM, instead of what follows from the model.")
@click.option("--fail-on", default=DEFAULT, show_default=True, help="Verdicts that make the exit status 1, or none.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Show every field, not only deviations.")
def command(
    cpu: str,
    smp: str,
    module: str,
    platform: str,
    choose: str,
    attributes: str | None,
    xfam: str | None,
    fail_on: str,
    form: str,
    everything: bool,
) -> int:
    """Say what `negotiate` would, without QEMU: what a CPU model becomes in a TD, and who decides."""
    criteria = Criteria(parse(fail_on))
    wish = understand(choose, attributes, xfam)
    try:
        host = find_host(module, platform)
    except HostRefused as error:
        raise (MissingError if error.status == MISSING else UsageError)(str(error), hint=error.hint) from error
    report = predict(cpu, smp, wish, host)
    if form == "json":
        sys.stdout.buffer.write(to_json(report))
        sys.stdout.buffer.flush()
    else:
        show(report, criteria, console_for(sys.stdout), everything=everything)
    return criteria.exit_code(report.lines)
