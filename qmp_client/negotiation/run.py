"""A whole negotiation: from a started QEMU to a report.

The caller starts QEMU (``qmp_client.qemu.spawn``) and hands it over; whatever happens here, it is gone at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from qmp_client.errors import TdxCpuidError, UsageError
from qmp_client.negotiation.choose import POLICIES, Choice
from qmp_client.negotiation.conversation import Conversation, Stage, Vcpu
from qmp_client.negotiation.outcome import decide, load_tables, report_on
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu.command_line import Machine, is_named_model
from qmp_client.qemu.ending import QUOTED_LINES, explain, unknown_name
from qmp_client.qemu.process import Process, watching
from qmp_client.qemu.record import Record, caveats, overcome, read, refusal
from qmp_client.qemu.spawn import Child, Simulation
from qmp_client.qmp.session import CommandRefused, Session, SessionLost, connect
from qmp_client.qmp.wire import to_cpuid
from qmp_client.reconcile.judges import referee
from qmp_client.report import model
from qmp_client.report.model import Report

if TYPE_CHECKING:  # loaded where there is a stock QEMU: until then QEMU waits for this program's imports
    from qmp_client.negotiation.stock import Seen

SENDING = 0.001
"""Seconds in which a command is certainly on its way to QEMU."""


async def leave_it_held(_: Session) -> None:
    """A TD whose guest is not started: its CPUID is decided before the first instruction."""


async def negotiate(
    child: Child,
    machine: Machine,
    wish: Wish,
    simulation: Simulation | None,
    timeout: float,
    meanwhile: Callable[[], None] = lambda: None,
    with_the_td: Callable[[Session], Awaitable[None]] = leave_it_held,
) -> Report:
    """Drive a QEMU that is held in preconfig through the three calls, and reconcile.

    Every step has ``timeout`` seconds. ``meanwhile`` is called while QEMU makes the TD and its vCPUs, which takes
    longest: a good time to load what comes next. ``with_the_td`` is awaited when everything has been read and the
    guest could start. Raises a TdxCpuidError that says which step failed, with QEMU's last lines.
    """
    host = simulation.host if simulation else None
    async with watching(child) as process:
        try:
            async with connect(child.monitor, timeout) as session:
                if machine.stock or not await session.is_patched():
                    from qmp_client.negotiation import stock  # noqa: PLC0415

                    seen = await stock.observe(session, wish)
                    await with_the_td(session)
                    await _quit(session)
                    await process.ended(timeout)
                    return _stock_report(seen, machine, wish, simulation, process)
                conversation = Conversation(session)
                config, asked = await conversation.config(), await conversation.requested()
                named = is_named_model(machine.cpu)
                choice = decide(wish, asked, to_cpuid(config.cpuid), named_model=named)
                await _feed(conversation, choice)
                await asyncio.gather(conversation.leave_preconfig(), _once_sent(meanwhile))
                vcpus = await conversation.read_back()
                version = session.qemu_version
                await with_the_td(session)
                await _quit(session)
        except (SessionLost, CommandRefused) as error:
            raise await _with_ending(error, process, machine) from error
        load_tables()  # while it ends
        await process.ended(timeout)
        record = read(process.record())
        environment = model.Environment(
            qemu=str(machine.qemu),
            qemu_version=version,
            kvm="simulated" if simulation else "/dev/kvm",
            interface=config.interface,
            module=host.module.name if host else None,
            platform=host.platform.name if host else None,
            caveats=caveats(record) if record else [],
        )
    request = model.Request(cpu=machine.cpu, smp=machine.smp, machine=machine.machine, choose=wish.source)
    report = report_on(request, environment, config, choice, vcpus, referee(record, host))
    if record is not None:
        _add_what_kvm_did(report, record)
    return report


async def _once_sent(work: Callable[[], None]) -> None:
    await asyncio.sleep(SENDING)
    work()


def _stock_report(seen: Seen, machine: Machine, wish: Wish, simulation: Simulation | None, process: Process) -> Report:
    """Report on what a stock QEMU and the simulation let see."""
    from qmp_client.negotiation import stock  # noqa: PLC0415

    host = simulation.host if simulation else None
    record = read(process.record())
    known = stock.put_together(seen, stock.warnings(process.complaints()), record, host)
    environment = model.Environment(
        qemu=str(machine.qemu),
        qemu_version=seen.qemu_version,
        kvm="simulated" if simulation else "/dev/kvm",
        interface="upstream",
        module=host.module.name if host else None,
        platform=host.platform.name if host else None,
        caveats=[*known.caveats, *(caveats(record) if record else [])],
    )
    request = model.Request(cpu=machine.cpu, smp=machine.smp, machine=machine.machine, choose=wish.source)
    vcpus = [Vcpu(index, known.requested, known.actual) for index in range(seen.vcpus)]
    report = report_on(request, environment, known.config, known.choice, vcpus, referee(record, host))
    if record is not None:
        _add_what_kvm_did(report, record)
    return report


async def negotiate_all(
    children: Sequence[Child], machine: Machine, wish: Wish, simulations: Sequence[Simulation], timeout: float
) -> list[Report]:
    """Negotiate with several QEMUs at once, one for each simulation.

    Raises the first one's error, if any; it says which interface it was, and whether another one builds the TD.
    """
    runs = (
        negotiate(child, machine, wish, simulation, timeout)
        for child, simulation in zip(children, simulations, strict=True)
    )
    results = dict(zip(simulations, await asyncio.gather(*runs, return_exceptions=True), strict=True))
    reports = {simulation: result for simulation, result in results.items() if isinstance(result, Report)}
    for simulation, result in results.items():
        if isinstance(result, TdxCpuidError):
            result.args = (f"with KVM's {simulation.interface} interface: {result}",)
            if others := [f"--kvm {other.interface}" for other in reports]:
                result.hint = " ".join([result.hint, f"{' and '.join(others)} builds the TD"]).strip()
        if isinstance(result, BaseException):
            raise result
    return list(reports.values())


async def attach(path: str, cpu: str, timeout: float) -> Report:
    """Reconcile a TD that already runs under a patched QEMU: the read-only steps over its QMP socket."""
    async with connect(path, timeout) as session:
        await session.require_patches()
        conversation = Conversation(session, Stage.RUNNING)
        config = await conversation.config()
        vcpus = await conversation.read_back()
        version = session.qemu_version
    asked = vcpus[0].requested
    configurable = to_cpuid(config.cpuid)
    choice = Choice(asked.attributes, asked.xfam, POLICIES["model"](to_cpuid(asked.cpuid), configurable))
    environment = model.Environment(
        qemu=path,
        qemu_version=version,
        kvm="not observed",
        interface=config.interface,
        caveats=["the TD was there before: its choice is taken to be what its -cpu model asked for"],
    )
    request = model.Request(cpu=cpu, smp=f"{len(vcpus)}", machine="as it runs", choose="not observed")
    return report_on(request, environment, config, choice, vcpus, referee(None, None))


def _add_what_kvm_did(report: Report, record: Record) -> None:
    """Add what only a simulated KVM tells."""
    report.notes += overcome(record)
    if record.tds:
        report.kvm_copy = record.tds[-1].kvm_copy


async def _feed(conversation: Conversation, choice: Choice) -> None:
    try:
        await conversation.feed(choice)
    except CommandRefused as error:
        raise UsageError(f"the choice cannot be made: {error.said}") from error


async def _quit(session: Session) -> None:
    """Ask QEMU to end. It may hang up before it answers, which is what was asked for."""
    with suppress(SessionLost):
        await session.execute("quit")


async def _with_ending(error: TdxCpuidError, process: Process, machine: Machine) -> TdxCpuidError:
    """Say how QEMU ended, when that is why the conversation broke; else the error as it is."""
    if unknown := unknown_name(str(error), machine):
        return unknown
    seconds = 2 if isinstance(error, SessionLost) else 0
    if await process.ended(seconds):
        return explain(error, process.ending, process.complaints(), machine, refusal(read(process.record())))
    error.quoted = tuple(process.complaints()[-QUOTED_LINES:])
    return error
