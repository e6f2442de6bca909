"""``tdx-cpuid sim``: help for the command that ``entry.main`` hands over to ``plugin.kvm.command``."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from plugin.kvm.command import option_names
from qmp_client.cli.door import Door


class _Sim(Door):
    """The shell completes its options; the command reads them itself."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The options that begin like this; files elsewhere."""
        found = [CompletionItem(name) for name in option_names() if name.startswith(incomplete)]
        return found if incomplete.startswith("-") else [CompletionItem(incomplete, type="file")]


command = _Sim(
    "sim",
    to="qmp_client.use_cases.sim",
    help="Run a command with /dev/kvm answered by a simulated TDX KVM.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
    params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
)
