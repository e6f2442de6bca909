"""``tdx-cpuid sim``: help for the command that ``entry.main`` hands over to ``plugin.kvm.command``."""

from __future__ import annotations

import sys

import click
from click.shell_completion import CompletionItem


class _Sim(click.Command):
    """The shell completes its options; the command reads them itself."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The options that begin like this; files elsewhere."""
        from plugin.kvm.command import option_names  # noqa: PLC0415

        found = [CompletionItem(name) for name in option_names() if name.startswith(incomplete)]
        return found if incomplete.startswith("-") else [CompletionItem(incomplete, type="file")]


@click.command(
    "sim",
    cls=_Sim,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run a command with /dev/kvm answered by a simulated TDX KVM."""
    from plugin.kvm.command import main as simulate  # noqa: PLC0415

    sys.exit(simulate(list(arguments)))
