"""``tdx-cpuid sim``: help for the command that ``entry.main`` hands over to ``plugin.kvm.command``."""

from __future__ import annotations

import sys

import click


@click.command(
    "sim", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run a command with /dev/kvm answered by a simulated TDX KVM."""
    from plugin.kvm.command import main as simulate  # noqa: PLC0415

    sys.exit(simulate(list(arguments)))
