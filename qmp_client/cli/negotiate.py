"""``tdx-cpuid negotiate``: one TD, from ``-cpu`` to a report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM, DIALECTS
from qmp_client.cli.completion import MODULE, PLATFORM
from qmp_client.errors import MissingError, UsageError
from qmp_client.qemu import firmware, locate, tdx_host
from qmp_client.qemu.command_line import Machine, arguments
from qmp_client.qemu.spawn import Child, Simulation, spawn

if TYPE_CHECKING:
    from qmp_client.negotiation.wish import Wish
    from qmp_client.report.model import Report
    from qmp_client.report.policy import Criteria


BOTH_AND_EXPECT = "--expect holds one report, --kvm both makes two; use --kvm upstream or --kvm proposal"
EXAMPLES = """
\b
Examples:
  tdx-cpuid negotiate --cpu host --platform emerald-rapids --module 1.5.05
  tdx-cpuid negotiate --cpu host,-avx512f --all
  tdx-cpuid negotiate --cpu host --format json > today.json
  tdx-cpuid negotiate --cpu host --format html > today.html
  tdx-cpuid negotiate --cpu host --expect today.json
  tdx-cpuid negotiate --cpu host --kvm both      (what another KVM interface would change)
  tdx-cpuid negotiate --qmp /run/td.qmp          (a TD that already runs)
  tdx-cpuid negotiate -- qemu-system-x86_64 -cpu SapphireRapids -smp 4 -m 8G -drive ...    (your own command line)
"""


@click.command("negotiate", short_help="Negotiate a TD's CPUID and say who decided each bit.", epilog=EXAMPLES)
@click.option("--cpu", default="host", show_default=True, help="QEMU's -cpu: a model and its features.")
@click.option("--smp", default="1", show_default=True, help="QEMU's -smp.")
@click.option("--machine", "machine_type", default="q35", show_default=True, help="QEMU's machine type.")
@click.option("--memory", default="512M", show_default=True, help="QEMU's -m.")
@click.option("--qemu", help="The QEMU to run.  [default: the one that scripts/build-qemu built]")
@click.option("--stock", is_flag=True, help="Use no patched command; choices go through -cpu, and less can be seen.")
@click.option("--firmware", "firmware_file", type=click.Path(path_type=Path), help="The TDVF image.")
@click.option("--qmp", "qmp_socket", help="Attach to a running QEMU by its QMP socket; only reads.")
@click.option(
    "--hardware", is_flag=True, help="Use this host's TDX; without it, the simulated KVM unless there is TDX."
)
@click.option(
    "--module",
    type=MODULE,
    help=f"Simulate this version of the TDX module: a name, or a captured profile.  [default: {DEFAULT_MODULE}]",
)
@click.option(
    "--platform",
    type=PLATFORM,
    help=f"Simulate this platform: a name, native, or a JSON file.  [default: {DEFAULT_PLATFORM}]",
)
@click.option("--strict-platform", is_flag=True, help="Refuse a platform on which the module would not start.")
@click.option(
    "--kvm",
    "interface",
    type=click.Choice(["upstream", "proposal", "both"]),
    help="Simulate KVM as Linux has it, as proposed in 2024, or compare the two.  [default: upstream]",
)
@click.option("--fault", "faults", multiple=True, metavar="SPEC", help="Let go wrong what can; see `sim --help`.")
@click.option(
    "--choose", default="model", show_default=True, help="model, maximal, minimal, or a file with exactly these bits."
)
@click.option("--attributes", help="The TD's 64-bit ATTRIBUTES, instead of what follows from the model.")
@click.option("--xfam", help="The TD's 64-bit XFAM, instead of what follows from the model.")
@click.option("--fail-on", default=None, help="Verdicts that make the exit status 1, or none.")
@click.option("--expect", type=click.Path(path_type=Path), help="A saved report: fail only where this one differs.")
@click.option("--format", "form", type=click.Choice(["table", "json", "html"]), default="table", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Show every field, not only deviations.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds for each step.",
)
@click.argument("own", nargs=-1, type=click.UNPROCESSED, metavar="[-- QEMU_COMMAND...]")
def command(
    cpu: str,
    smp: str,
    machine_type: str,
    memory: str,
    qemu: str | None,
    stock: bool,
    firmware_file: Path | None,
    qmp_socket: str | None,
    hardware: bool,
    module: str | None,
    platform: str | None,
    strict_platform: bool,
    interface: str | None,
    faults: tuple[str, ...],
    choose: str,
    attributes: str | None,
    xfam: str | None,
    fail_on: str | None,
    expect: Path | None,
    form: str,
    everything: bool,
    timeout: float,
    own: tuple[str, ...],
) -> int:
    """Negotiate a TD's CPUID through QEMU and say, for every bit, what became of it and who decided.

    Behind -- the QEMU command line that you already use is taken as it is; only what is needed is added to it.
    """
    # Wrong words are found before anything is started. These cannot be wrong, and need not wait for what judges.
    certain = expect is None and fail_on in (None, "none")
    judged = None if certain else _criteria(fail_on, expect)
    if qmp_socket is not None:
        _check_nothing_is_for_a_new_td()
        report = _attached(qmp_socket, cpu, timeout)
    else:
        simulation = _simulation(hardware, module, platform, interface, faults, strict=strict_platform)
        if own:
            machine, line, additions = _own_command_line(own, firmware_file, stock=stock)
        else:
            machine = Machine(
                locate.find_qemu(qemu), firmware.find_firmware(firmware_file), cpu, smp, memory, machine_type, stock
            )
            line, additions = partial(arguments, machine), ()
        # Contradictions are found before anything is started; the plain case has none and need not wait.
        plain = (choose, attributes, xfam) == ("model", None, None)
        wish = None if plain else _wish(choose, attributes, xfam)
        # Started before the rest is loaded: QEMU's own start and these imports then run side by side.
        if interface == "both" and simulation is not None:
            if expect is not None:
                raise UsageError(BOTH_AND_EXPECT)
            sides = [simulation._replace(interface=name) for name in DIALECTS]
            children = [spawn(line, side) for side in sides]
            wish = wish or _wish(choose, attributes, xfam)
            reports = _negotiated_both(children, machine, wish, sides, timeout)
            return _conclude_both(reports, judged or _criteria(fail_on, expect), form)
        child = spawn(line, simulation)
        report = _negotiated(child, machine, wish or _wish(choose, attributes, xfam), simulation, timeout, form)
        report.notes[:0] = additions
    return _conclude(report, judged or _criteria(fail_on, expect), form, everything=everything)


GO_WITH_QMP = ("qmp_socket", "cpu", "fail_on", "expect", "form", "everything", "timeout")


def _check_nothing_is_for_a_new_td() -> None:
    for name, option in _given():
        if name not in GO_WITH_QMP:
            raise UsageError(f"--qmp attaches to a TD that runs already; {option} is for a new one")


def _given() -> Iterator[tuple[str, str]]:
    """The parameters that the user gave, each with its option."""
    context = click.get_current_context()
    for param in context.command.params:
        if param.name and context.get_parameter_source(param.name) is click.core.ParameterSource.COMMANDLINE:
            yield param.name, param.opts[0] if isinstance(param, click.Option) else "a command line behind --"


SAID_BY_THE_COMMAND_LINE = ("cpu", "smp", "machine_type", "memory", "qemu", "qmp_socket")


def _own_command_line(
    words: tuple[str, ...], firmware_file: Path | None, *, stock: bool
) -> tuple[Machine, Callable[[int], list[str]], tuple[str, ...]]:
    """What the user's own command line says, the line to run, and what was added to it."""
    from qmp_client.qemu.own_command_line import adapt, config_files, names_firmware  # noqa: PLC0415

    for name, option in _given():
        if name in SAID_BY_THE_COMMAND_LINE:
            raise UsageError(f"{option} stands beside a command line of your own: say it in that one, behind --")
    image = (firmware_file or firmware.default()) if names_firmware(words) else firmware.find_firmware(firmware_file)
    configs = {path: _text(Path(path)) for path in config_files(words)}
    line = adapt(words, locate.find_qemu(words[0]), image, patched=not stock, configs=configs)
    return line.machine, line.arguments, line.additions


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"-readconfig {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _negotiated(
    child: Child, machine: Machine, wish: Wish, simulation: Simulation | None, timeout: float, form: str
) -> Report:
    import asyncio  # noqa: PLC0415

    from qmp_client.negotiation.run import negotiate  # noqa: PLC0415

    def load_table() -> None:
        if form == "table":
            import_module("qmp_client.report.table")

    return asyncio.run(negotiate(child, machine, wish, simulation, timeout, load_table))


def _negotiated_both(
    children: list[Child], machine: Machine, wish: Wish, sides: list[Simulation], timeout: float
) -> list[Report]:
    import asyncio  # noqa: PLC0415

    from qmp_client.negotiation.run import negotiate_all  # noqa: PLC0415

    return asyncio.run(negotiate_all(children, machine, wish, sides, timeout))


def _attached(qmp_socket: str, cpu: str, timeout: float) -> Report:
    import asyncio  # noqa: PLC0415

    from qmp_client.negotiation.run import attach  # noqa: PLC0415

    return asyncio.run(attach(qmp_socket, cpu, timeout))


def _simulation(
    hardware: bool,
    module: str | None,
    platform: str | None,
    interface: str | None,
    faults: tuple[str, ...],
    *,
    strict: bool,
) -> Simulation | None:
    """The simulation to run on; None for this host's TDX. Names are checked here, before QEMU is started."""
    simulated = module or platform or interface or faults or strict
    if hardware and simulated:
        raise UsageError(
            "--hardware uses this host's TDX module, processor and KVM; leave out --module, --platform, --kvm and"
            " --fault"
        )
    if hardware or not simulated:
        lacking = tdx_host.what_is_missing()
        if not lacking:
            return None
        if hardware:
            raise MissingError(f"this host has no TDX: {lacking}", hint="leave out --hardware to simulate one")
    from qmp_client.qemu.simulated import simulation  # noqa: PLC0415

    one = DIALECTS[0] if interface in (None, "both") else interface
    return simulation(module or DEFAULT_MODULE, platform or DEFAULT_PLATFORM, one, faults, strict=strict)


def _wish(choose: str, attributes: str | None, xfam: str | None) -> Wish:
    from qmp_client.negotiation.wish import understand  # noqa: PLC0415

    return understand(choose, attributes, xfam)


def _criteria(fail_on: str | None, expect: Path | None) -> Criteria:
    """What the report is held against; wrong words and files are found before QEMU is started."""
    from qmp_client.report import policy  # noqa: PLC0415

    parsed = policy.parse(policy.DEFAULT if fail_on is None else fail_on)
    if expect is None:
        return policy.Criteria(parsed)
    from qmp_client.report.model import load  # noqa: PLC0415

    expected = load(expect)
    return policy.Criteria(parsed, expected.lines, expected.environment)


def _conclude(report: Report, criteria: Criteria, form: str, *, everything: bool) -> int:
    """Print the report and return the exit status."""
    if criteria.expected_in is not None:
        from qmp_client.report.policy import moved  # noqa: PLC0415

        report.notes += moved(criteria.expected_in, report.environment)
    if form == "json":
        from qmp_client.report.model import to_json  # noqa: PLC0415

        sys.stdout.buffer.write(to_json(report))
        sys.stdout.buffer.flush()
    elif form == "html":
        _page([report], criteria)
    else:
        from qmp_client.report.console import console_for  # noqa: PLC0415
        from qmp_client.report.table import show  # noqa: PLC0415

        show(report, criteria, console_for(sys.stdout), everything=everything)
    return criteria.exit_code(report.lines)


def _conclude_both(reports: list[Report], criteria: Criteria, form: str) -> int:
    """Print what lies between the two reports; the exit status is that of the worse one."""
    from qmp_client.report import side_by_side  # noqa: PLC0415

    result = side_by_side.side_by_side(*reports)
    if form == "json":
        sys.stdout.buffer.write(side_by_side.to_json(result))
        sys.stdout.buffer.flush()
    elif form == "html":
        _page(reports, criteria)
    else:
        from qmp_client.report.console import console_for  # noqa: PLC0415

        side_by_side.show(result, console_for(sys.stdout))
    return max(criteria.exit_code(report.lines) for report in reports)


def _page(reports: list[Report], criteria: Criteria) -> None:
    from qmp_client.page import of_report, render  # noqa: PLC0415

    sys.stdout.buffer.write(render([of_report(report) for report in reports], criteria.policy).encode())
    sys.stdout.buffer.flush()
