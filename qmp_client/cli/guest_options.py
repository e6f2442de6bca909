"""The option that says who executes CPUID in the TD; shared by all commands that report what a guest sees."""

from __future__ import annotations

import click

from plugin.tdx_module.guests import DEFAULT_GUEST

WORDS = "linux, linux-6.6, tdvf, td (what the TD holds), or controls as in reduce-ve,paravirt=mtrr+mca"
GUEST = click.Option(["--guest"], default=DEFAULT_GUEST, show_default=True, help=f"Who executes CPUID: {WORDS}.")
