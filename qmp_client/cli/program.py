"""The commands of ``tdx-cpuid``: each is loaded when it is run, and its errors become sentences and exit codes."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from importlib import import_module
from typing import Any

import click

from qmp_client.errors import MissingError, TdxCpuidError

COMMANDS = {
    "agent": "qmp_client.cli.agent",
    "baseline": "qmp_client.cli.baseline",
    "capture": "qmp_client.cli.capture",
    "check-guest": "qmp_client.cli.check_guest",
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
READER_GONE = 141
"""That of a command whose output nobody reads any more (128 + SIGPIPE), as in ``tdx-cpuid ... | head``."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

LIMITS = {
    errno.EMFILE: ("this command may not open as many files as it needs", "ulimit -n 1024 lets it"),
    errno.ENFILE: ("this machine has no room for more open files", "sysctl fs.file-max says how many there may be"),
    errno.ENOMEM: ("there is not enough memory", "ulimit -v and free -m say how much there is"),
    errno.EAGAIN: ("no further process or thread could be started", "ulimit -u says how many there may be"),
}
"""Errors of system calls that any step can meet, and what mends them."""


class ReaderGone(Exception):
    """A BrokenPipeError that click does not see: it would leave with 1, which says that a policy was not met."""


class LazyGroup(click.Group):
    """Loads a command's module only when that command is run: start-up is part of the product."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the command line; ``--help`` prints."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error

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


EXAMPLES = """
\b
Examples:
  tdx-cpuid doctor                                 (what is missing here?)
  tdx-cpuid negotiate --cpu SapphireRapids         (what does a TD get of this model?)
  tdx-cpuid explain avx512f                        (who decides about this bit?)
  tdx-cpuid COMMAND --help                         (all options, more examples)
"""


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXAMPLES)
@click.version_option(package_name="tdx-cpuid")
def program() -> None:
    """Show who decides each CPUID bit of a TDX guest: the user, QEMU, KVM or the TDX module.

    Exit status: 0 as expected, 1 not what was asked for, 2 usage, 3 something is missing on this machine,
    4 QEMU or KVM failed, 5 a mistake in tdx-cpuid.
    """


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="backslashreplace")  # a terminal without "·" still shows the rest
    try:
        status = _status(arguments)
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGone):
        _give_up_output()
        return READER_GONE
    except Exception as error:
        if isinstance(error, OSError) and (lack := _lack(error)):
            _give_up_output()
            complain(lack)
            return lack.exit_code
        from plugin.crash import unexpected  # noqa: PLC0415

        return unexpected("tdx-cpuid", arguments, error)
    return status


def _lack(error: OSError) -> MissingError | None:
    """What this machine, or its limits for this process, has too little of, if that is what an error is about."""
    if error.errno in NO_ROOM and error.filename is None:
        return MissingError(f"the output cannot be written: {error.strerror}")
    if error.errno in LIMITS:
        what, hint = LIMITS[error.errno]
        return MissingError(f"{what}: {error.strerror}", hint=hint)
    return None


def _give_up_output() -> None:
    """Let what is still buffered go nowhere, so that the interpreter's own end does not fail on it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _status(arguments: list[str]) -> int:
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
    except OverflowError:
        if _has_a_clock():
            raise
        complain(
            MissingError(
                "this machine's clock is more than 292 years from 1970, which Python cannot read",
                hint="set it, as with `timedatectl set-time`",
            )
        )
        return MissingError.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    return int(status or 0)


def _has_a_clock() -> bool:
    """Whether Python can tell the time; asyncio and logging ask for it while they load."""
    try:
        time.time()
    except OverflowError:
        return False
    return True


def complain(error: TdxCpuidError) -> None:
    """Tell the user what failed, what the failing program said, and what to do next."""
    click.echo(f"tdx-cpuid: {error}", err=True)
    for line in error.quoted:
        click.echo(f"  | {line}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
