"""``tdx-cpuid submit``: jobs for a lab, and what became of them."""

from __future__ import annotations

import click

from plugin.tdx_module.guests import DEFAULT_GUEST
from qmp_client.cli.door import Door, Group
from qmp_client.cli.guest_options import HELP as GUEST_HELP
from qmp_client.cli.lab_options import AT
from qmp_client.cli.policy_options import fail_on
from qmp_client.cli.types import FILE, POSITIVE

HELP = """
Send a job, or one for each cell of a grid, to a lab and wait for the results.

A job goes to one host of the pool; the broker picks it. Ctrl-C leaves the jobs running.

With --boot the guest is started as well: on hardware in the TD, on a simulated host in plain emulation.

Exit status 1 when a TD does not meet the policy, 2 when a job was rejected, 4 when one failed.
"""
EXAMPLES = """
\b
Examples:
  tdx-cpuid submit --broker mqtt://localhost --pool emr --cpu host,-avx512f
  tdx-cpuid submit --pool emr --cpu host --cpu SapphireRapids --module 1.5.05 --module 2.0.18 --html grid.html
  tdx-cpuid submit --pool emr --file grid.toml --no-wait
  tdx-cpuid submit --pool emr --boot debian --until 'login:'       (start the guest, too)
  tdx-cpuid submit --result job-5c1e9a --format json
"""
MANY = "repeatable"
AXES = Group(
    "axes",
    "qmp_client.use_cases.submit:Axes",
    (
        click.Option(["--cpu"], multiple=True, help=f"QEMU's -cpu; {MANY}.  [default: host]"),
        click.Option(
            ["--machine"], multiple=True, help=f"A machine type of the host's list; {MANY}.  [default: its first]"
        ),
        click.Option(
            ["--module"], multiple=True, help=f"A TDX module of the host's list; {MANY}.  [default: its first]"
        ),
        click.Option(
            ["--platform"], multiple=True, help=f"A platform of the host's list; {MANY}.  [default: its first]"
        ),
        click.Option(
            ["--qemu"], multiple=True, help=f"A QEMU of the host's list, by name; {MANY}.  [default: its first]"
        ),
        click.Option(["--smp"], multiple=True, help=f"How many vCPUs; {MANY}.  [default: 1]"),
    ),
)
"""Each cell of the grid is a job."""
GUEST = Group(
    "guest",
    "qmp_client.use_cases.submit:Guest",
    (
        click.Option(
            ["--boot", "disk"],
            metavar="DISK",
            help="Boot a guest from this disk of the host's list ('' for its first).",
        ),
        click.Option(
            ["--until", "pattern"],
            help="The guest is up when a line of its console matches this regular expression.",
        ),
        click.Option(
            ["--until-agent", "guest_agent"], is_flag=True, help="The guest is up when its QEMU agent answers."
        ),
        click.Option(
            ["--boot-seconds", "seconds"], type=POSITIVE, help="For it to be up.  [default: the host's limit]"
        ),
    ),
)
"""The guest that every job boots."""

command = Door(
    "submit",
    to="qmp_client.use_cases.submit",
    short_help="Send jobs to a lab and wait for the results.",
    help=HELP,
    epilog=EXAMPLES,
    params=[
        AT,
        click.Option(["--pool"], help="Send to whichever host of this pool is free."),
        click.Option(["--host"], help="Send to this host."),
        click.Option(["--file", "grid_file"], type=FILE, help="A TOML grid, as of `matrix`; no patterns."),
        AXES,
        click.Option(
            ["--option", "options"], multiple=True, help="QEMU options of the host's list, by name; repeatable."
        ),
        GUEST,
        click.Option(["--console"], type=FILE, help="Write the guest's console; for one job."),
        click.Option(["--choose"], help="model, maximal or minimal.  [default: model]"),
        click.Option(["--guest", "seen_by"], help=f"{GUEST_HELP}  [default: {DEFAULT_GUEST}]"),
        click.Option(
            ["--id", "name"], help="The job's id; several jobs are called ID-1, ID-2, ...  [default: a new one]"
        ),
        click.Option(
            ["--result", "wanted"], multiple=True, help="Send nothing; get the result of this job. Repeatable."
        ),
        click.Option(["--wait/--no-wait"], default=True, help="--no-wait prints the ids, and the jobs go on."),
        click.Option(["--timeout"], type=POSITIVE, help="Seconds to wait.  [default: no limit]"),
        fail_on(),
        click.Option(["--format", "form"], type=click.Choice(["table", "json"]), default="table", show_default=True),
        click.Option(["--html"], type=FILE, help="Write the grid as a page."),
        click.Option(["--junit"], type=FILE, help="Write JUnit XML."),
    ],
)
