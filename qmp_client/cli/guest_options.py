"""The option that says who executes CPUID in the TD; shared by all commands that report what a guest sees."""

from __future__ import annotations

import click

from plugin.tdx_module.guests import DEFAULT_GUEST

WORDS = "linux, linux-6.6, tdvf, td (what the TD holds), or controls as in reduce-ve,paravirt=mtrr+mca"
HELP = f"Who executes CPUID: {WORDS}."
GUEST = click.Option(["--guest"], default=DEFAULT_GUEST, show_default=True, help=HELP)
GUEST_OF_GRID = click.Option(["--guest"], help=f"{HELP}  [default: {DEFAULT_GUEST}]")
"""Where a grid's file may say it."""
