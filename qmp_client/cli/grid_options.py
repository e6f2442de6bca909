"""The options that describe a grid and how it is run, shared by ``matrix`` and ``baseline``."""

from __future__ import annotations

import click

from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM
from qmp_client.cli.completion import MODULE, PLATFORM
from qmp_client.cli.door import Group
from qmp_client.cli.guest_options import GUEST_OF_GRID
from qmp_client.cli.types import FILE, POSITIVE

SEVERAL = "repeatable; all, or a pattern"

GRID = Group(
    "grid",
    "qmp_client.matrix.asked:Words",
    (
        click.Option(["--file", "grid_file"], type=FILE, help="A TOML file with these."),
        click.Option(["--cpu"], multiple=True, help=f"QEMU's -cpu; {SEVERAL}.  [default: host]"),
        click.Option(["--machine"], multiple=True, help=f"QEMU's machine type; {SEVERAL}.  [default: q35]"),
        click.Option(
            ["--module"], type=MODULE, multiple=True, help=f"TDX module; {SEVERAL}.  [default: {DEFAULT_MODULE}]"
        ),
        click.Option(
            ["--platform"], type=PLATFORM, multiple=True, help=f"Platform; {SEVERAL}.  [default: {DEFAULT_PLATFORM}]"
        ),
        click.Option(["--smp"], multiple=True, help="QEMU's -smp; repeatable.  [default: 1]"),
        GUEST_OF_GRID,
        click.Option(["--kvm"], multiple=True, help="upstream, proposal or all: KVM's interface.  [default: upstream]"),
    ),
)
RUNNING = Group(
    "running",
    "qmp_client.matrix.asked:Running",
    (
        click.Option(["--firmware", "firmware_file"], type=FILE, help="The TDVF image."),
        click.Option(["--jobs"], type=click.IntRange(min=1), help="How many at once.  [default: one for each core]"),
        click.Option(
            ["--timeout"], type=POSITIVE, default=30.0, show_default=True, help="Seconds for each step of a cell."
        ),
    ),
)
