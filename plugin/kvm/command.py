"""The command `tdx-cpuid sim`: any program, with /dev/kvm simulated."""

from __future__ import annotations

import os
import sys

from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM, DIALECTS, USAGE, default_host, supervise
from plugin.kvm.say import say
from plugin.typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from plugin.tdx_module import TdxHost

EPILOG = """\
Examples:
  tdx-cpuid sim -- qemu-system-x86_64 -accel kvm -object tdx-guest,id=tdx0 ...
  tdx-cpuid sim --platform granite-rapids --module 2.0.18 --verbose -- COMMAND
  tdx-cpuid sim --record talk.jsonl -- COMMAND       (tdx-cpuid replay talk.jsonl shows it)
  tdx-cpuid sim --kvm proposal --fault entropy=3 -- COMMAND

Exit status: the command's (128 + n for signal n), 2 wrong usage, 3 something is missing here,
5 a mistake in tdx-cpuid."""


def main(argv: list[str]) -> int:
    """Run `[options] -- COMMAND...` (`--help` lists the options); return its exit status.

    128 + n if signal n ended it. 2 for wrong usage, 3 when something is missing on this machine, the command
    itself included; 5 for what nobody expected, which kills the command.
    """
    try:
        return _run(argv)
    except Exception as error:
        from plugin.crash import unexpected  # noqa: PLC0415

        return unexpected("tdx-cpuid sim", ["sim", *argv], error)


def _run(argv: list[str]) -> int:
    if len(argv) > 1 and argv[0] == "--":
        return supervise(default_host, argv[1:])  # nothing to parse: a parser costs 4 ms
    parser = _parser()
    arguments = parser.parse_args(argv)
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("which command? For example: tdx-cpuid sim -- qemu-system-x86_64 -accel kvm ...")
    host = _host(arguments)
    if isinstance(host, int):
        return host
    if arguments.fault and (problem := _unknown_fault(arguments.fault)):
        say(f"tdx-cpuid sim: {problem}")
        return USAGE
    conversation = None
    if arguments.record:
        try:
            conversation = os.open(arguments.record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            say(f"tdx-cpuid sim: --record {arguments.record}: {error.strerror}")
            return USAGE
    return supervise(
        host,
        command,
        dialect=arguments.kvm,
        faults=tuple(arguments.fault),
        conversation_fd=conversation,
        native_cpuid=arguments.native_cpuid,
        verbose=arguments.verbose,
    )


def _host(arguments: Any) -> Callable[[], TdxHost] | int:
    """What to simulate, or the exit status if there is no such host.

    The default cannot be wrong, and is loaded while the command starts.
    """
    if (arguments.module, arguments.platform) == (DEFAULT_MODULE, DEFAULT_PLATFORM) and not arguments.strict_platform:
        return default_host
    from plugin.kvm.host import HostRefused, find_host  # noqa: PLC0415

    try:
        found = find_host(arguments.module, arguments.platform, strict=arguments.strict_platform)
    except HostRefused as error:
        say(f"tdx-cpuid sim: {error}")
        return error.status
    return lambda: found


def _unknown_fault(faults: list[str]) -> str:
    """Say what is wrong with a fault; empty when nothing is."""
    from plugin.kvm.dialects.faults import Faults, UnknownFault  # noqa: PLC0415

    try:
        Faults(faults)
    except UnknownFault as error:
        return str(error)
    return ""


def option_names() -> list[str]:
    """Every option, for a shell to complete."""
    return [name for action in _parser()._actions for name in action.option_strings if name.startswith("--")]


def _parser() -> ArgumentParser:
    import argparse  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="tdx-cpuid sim",
        description="Run a command, unprivileged, with /dev/kvm answered by a simulated TDX KVM.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--module", default=DEFAULT_MODULE, help="TDX module version (default %(default)s)")
    parser.add_argument(
        "--platform", default=DEFAULT_PLATFORM, help="processor, or native, or a file (default %(default)s)"
    )
    parser.add_argument(
        "--strict-platform", action="store_true", help="refuse a processor on which the module would not start"
    )
    parser.add_argument(
        "--kvm",
        choices=DIALECTS,
        default=DIALECTS[0],
        help="how KVM is asked about a TD's CPUID: as Linux has it, or as proposed in 2024 (default %(default)s)",
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="SPEC",
        help="let go wrong what can: entropy[=N], init-vm=OPERAND[:LEAF], get-cpuid-shrinks, "
        "vcpu-differs=N:LEAF.REG[BIT]; repeatable",
    )
    parser.add_argument(
        "--native-cpuid",
        action="store_true",
        help="let the command's CPUID instructions see this machine, so that gdb can attach",
    )
    parser.add_argument(
        "--record", metavar="FILE", help="write every KVM call, decoded, as JSON Lines; tdx-cpuid replay shows them"
    )
    parser.add_argument("--verbose", action="store_true", help="print every KVM ioctl on standard error")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
