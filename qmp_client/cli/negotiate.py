"""``tdx-cpuid negotiate``: one TD, from ``-cpu`` to a report."""

from __future__ import annotations

import click

from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM
from qmp_client.cli.completion import MODULE, PLATFORM
from qmp_client.cli.door import Door, Group, given
from qmp_client.cli.guest_options import GUEST
from qmp_client.cli.policy_options import fail_on
from qmp_client.cli.types import FILE, POSITIVE
from qmp_client.cli.wish_options import WISH
from qmp_client.errors import UsageError

EXAMPLES = """
\b
Examples:
  tdx-cpuid negotiate --cpu host --platform emerald-rapids --module 1.5.05
  tdx-cpuid negotiate --cpu host,-avx512f --all
  tdx-cpuid negotiate --cpu host --format json > today.json
  tdx-cpuid negotiate --cpu host --format html > today.html
  tdx-cpuid negotiate --cpu host --expect today.json
  tdx-cpuid negotiate --cpu host --kvm both      (what another KVM interface would change)
  tdx-cpuid negotiate --qmp /run/td.qmp          (a TD that already runs)
  tdx-cpuid negotiate -- qemu-system-x86_64 -cpu SapphireRapids -smp 4 -m 8G -drive ...    (your own command line)
"""

GO_WITH_QMP = ("qmp_socket", "cpu", "guest", "fail_on", "expect", "form", "everything", "timeout")
SAID_BY_THE_COMMAND_LINE = ("cpu", "smp", "machine_type", "memory", "qemu", "qmp_socket")
SIMULATED = ("module", "platform", "interface", "faults", "strict_platform")

KVM = Group(
    "kvm",
    "qmp_client.qemu.which_kvm:Words",
    (
        click.Option(
            ["--hardware"],
            is_flag=True,
            help="Use this host's TDX; without it, the simulated KVM unless there is TDX.",
        ),
        click.Option(
            ["--module"],
            type=MODULE,
            help="Simulate this version of the TDX module: a name, or a captured profile."
            f"  [default: {DEFAULT_MODULE}]",
        ),
        click.Option(
            ["--platform"],
            type=PLATFORM,
            help=f"Simulate this platform: a name, native, or a JSON file.  [default: {DEFAULT_PLATFORM}]",
        ),
        click.Option(
            ["--strict-platform"], is_flag=True, help="Refuse a platform on which the module would not start."
        ),
        click.Option(
            ["--kvm", "interface"],
            type=click.Choice(["upstream", "proposal", "both"]),
            help="Simulate KVM as Linux has it, as proposed in 2024, or compare the two.  [default: upstream]",
        ),
        click.Option(
            ["--fault", "faults"], multiple=True, metavar="SPEC", help="Let go wrong what can; see `sim --help`."
        ),
    ),
)


def check(ctx: click.Context) -> None:
    """Raise UsageError for options that contradict each other."""
    said, words = given(ctx), ctx.params
    if words["qmp_socket"] is not None:
        for name, option in said.items():
            if name not in GO_WITH_QMP:
                raise UsageError(f"--qmp attaches to a TD that runs already; {option} is for a new one")
    if words["hardware"] and any(words[name] for name in SIMULATED):
        raise UsageError(
            "--hardware uses this host's TDX module, processor and KVM; leave out --module, --platform, --kvm and"
            " --fault"
        )
    if words["own"]:
        for name, option in said.items():
            if name in SAID_BY_THE_COMMAND_LINE:
                raise UsageError(f"{option} stands beside a command line of your own: say it in that one, behind --")
    if words["interface"] == "both" and words["expect"] is not None:
        raise UsageError("--expect holds one report, --kvm both makes two; use --kvm upstream or --kvm proposal")


command = Door(
    "negotiate",
    to="qmp_client.use_cases.negotiate",
    check=check,
    short_help="Negotiate a TD's CPUID and say who decided each bit.",
    help="""Negotiate a TD's CPUID through QEMU and say, for every bit, what became of it and who decided.

    Behind -- the QEMU command line that you already use is taken as it is; only what is needed is added to it.
    """,
    epilog=EXAMPLES,
    params=[
        click.Option(["--cpu"], default="host", show_default=True, help="QEMU's -cpu: a model and its features."),
        click.Option(["--smp"], default="1", show_default=True, help="QEMU's -smp."),
        click.Option(["--machine", "machine_type"], default="q35", show_default=True, help="QEMU's machine type."),
        click.Option(["--memory"], default="512M", show_default=True, help="QEMU's -m."),
        click.Option(["--qemu"], help="The QEMU to run.  [default: the one that scripts/build-qemu built]"),
        click.Option(
            ["--stock"], is_flag=True, help="Use no patched command; choices go through -cpu, and less can be seen."
        ),
        click.Option(["--firmware", "firmware_file"], type=FILE, help="The TDVF image."),
        click.Option(["--qmp", "qmp_socket"], help="Attach to a running QEMU by its QMP socket; only reads."),
        KVM,
        *WISH,
        GUEST,
        fail_on(),
        click.Option(["--expect"], type=FILE, help="A saved report: fail only where this one differs."),
        click.Option(
            ["--format", "form"], type=click.Choice(["table", "json", "html"]), default="table", show_default=True
        ),
        click.Option(["--all", "everything"], is_flag=True, help="Show every field, not only deviations."),
        click.Option(["--timeout"], type=POSITIVE, default=30.0, show_default=True, help="Seconds for each step."),
        click.Argument(["own"], nargs=-1, type=click.UNPROCESSED, metavar="[-- QEMU_COMMAND...]"),
    ],
)
