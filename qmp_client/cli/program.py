"""The commands of ``tdx-cpuid``: each is loaded when it is run, and its errors become sentences and exit codes."""

from __future__ import annotations

from importlib import import_module

import click

from qmp_client.errors import TdxCpuidError

COMMANDS = {
    "agent": "qmp_client.cli.agent",
    "baseline": "qmp_client.cli.baseline",
    "capture": "qmp_client.cli.capture",
    "contract": "qmp_client.cli.contract",
    "doctor": "qmp_client.cli.doctor",
    "drain": "qmp_client.cli.drain",
    "explain": "qmp_client.cli.explain",
    "matrix": "qmp_client.cli.matrix",
    "negotiate": "qmp_client.cli.negotiate",
    "predict": "qmp_client.cli.predict",
    "replay": "qmp_client.cli.replay",
    "sim": "qmp_client.cli.sim",
    "submit": "qmp_client.cli.submit",
    "watch": "qmp_client.cli.watch",
}
INTERRUPTED = 130
"""The shell's exit status for a command that Ctrl-C ended."""


class LazyGroup(click.Group):
    """Loads a command's module only when that command is run: start-up is part of the product."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name]}.command is no command")
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tdx-cpuid")
def program() -> None:
    """Show who decides each CPUID bit of a TDX guest: the user, QEMU, KVM or the TDX module.

    Exit status: 0 as expected, 1 not what was asked for, 2 usage, 3 something is missing on this machine,
    4 QEMU or KVM failed.
    """


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status."""
    try:
        status = program(arguments, prog_name="tdx-cpuid", standalone_mode=False)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except TdxCpuidError as error:
        complain(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    return int(status or 0)


def complain(error: TdxCpuidError) -> None:
    """Tell the user what failed, what the failing program said, and what to do next."""
    click.echo(f"tdx-cpuid: {error}", err=True)
    for line in error.quoted:
        click.echo(f"  | {line}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
