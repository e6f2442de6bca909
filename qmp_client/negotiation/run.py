"""A whole negotiation: from a started QEMU to a report.

Whoever wants a TD puts a ``Setup`` together, starts it (``setup.start``) and hands the QEMU over; whatever happens
here, it is gone at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from plugin.tdx_module.guests import LINUX, Guest
from qmp_client.entries import to_cpuid
from qmp_client.errors import QemuError, TdxCpuidError, UsageError
from qmp_client.negotiation.choose import POLICIES, Choice
from qmp_client.negotiation.conversation import Conversation, Stage
from qmp_client.negotiation.outcome import Reading, Subject, decide, load_tables, report_on
from qmp_client.negotiation.referee import referee
from qmp_client.negotiation.setup import Setup
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu.command_line import Machine, is_named_model
from qmp_client.qemu.ending import QUOTED_LINES, explain, unknown_name
from qmp_client.qemu.process import Process, watching
from qmp_client.qemu.record import caveats, overcome, read, refusal
from qmp_client.qemu.spawn import Child
from qmp_client.qmp.session import CommandRefused, Session, SessionLost, connect
from qmp_client.report.model import Report

if TYPE_CHECKING:  # loaded where there is a stock QEMU: until then QEMU waits for this program's imports
    from qmp_client.negotiation.stock import Seen

SENDING = 0.001
"""Seconds in which a command is certainly on its way to QEMU."""


async def leave_it_held(_: Session) -> None:
    """A TD whose guest is not started: its CPUID is decided before the first instruction."""


async def negotiate(
    child: Child,
    setup: Setup,
    meanwhile: Callable[[], object] = lambda: None,
    with_the_td: Callable[[Session], Awaitable[None]] = leave_it_held,
) -> Report:
    """Drive a QEMU that ``setup.start`` holds in preconfig through the three calls, and reconcile.

    ``meanwhile`` is called while QEMU makes the TD and its vCPUs, which takes longest: a good time to load what comes
    next. ``with_the_td`` is awaited when everything has been read and the guest could start. Raises a TdxCpuidError
    that says which step failed, with QEMU's last lines.
    """
    async with watching(child) as process:
        try:
            async with connect(child.monitor, setup.timeout) as session:
                seen: Reading | Seen
                if setup.machine.stock or not await session.is_patched():
                    from qmp_client.negotiation import stock  # noqa: PLC0415  until here QEMU waits for imports

                    seen = await stock.observe(session, setup.wish)
                else:
                    seen = await _three_calls(session, setup, meanwhile)
                await with_the_td(session)
                await _quit(session)
        except (SessionLost, CommandRefused) as error:
            raise await _with_ending(error, process, setup.machine) from error
        load_tables()  # while it ends
        await process.ended(setup.timeout)
        record = read(process.record())
        reading = seen if isinstance(seen, Reading) else seen.reading(process.complaints(), record, setup.host)
    if record is not None:
        reading = reading._replace(caveats=[*reading.caveats, *caveats(record)])
        if record.tds:
            reading = reading._replace(kvm_copy=record.tds[-1].kvm_copy)
    report = report_on(_subject(setup), reading, referee(record, setup.host))
    report.notes += overcome(record)
    return report


def _subject(setup: Setup) -> Subject:
    machine = setup.machine
    return Subject(
        qemu=str(machine.qemu),
        kvm="simulated" if setup.simulation else "/dev/kvm",
        cpu=machine.cpu,
        smp=machine.smp,
        machine=machine.machine,
        wish=setup.wish,
        host=setup.host,
        guest=setup.guest,
    )


async def _three_calls(session: Session, setup: Setup, meanwhile: Callable[[], object]) -> Reading:
    conversation = Conversation(session)
    config, asked = await conversation.config(), await conversation.requested()
    choice = decide(setup.wish, asked, to_cpuid(config.cpuid), named_model=is_named_model(setup.machine.cpu))
    await _feed(conversation, choice)
    await asyncio.gather(conversation.leave_preconfig(), _once_sent(meanwhile))
    vcpus = await conversation.read_back()
    return Reading(session.qemu_version, config, choice, vcpus)


async def _once_sent(work: Callable[[], object]) -> None:
    await asyncio.sleep(SENDING)
    work()


async def negotiate_all(children: Sequence[Child], setups: Sequence[Setup]) -> list[Report]:
    """Negotiate with several QEMUs at once, one for each KVM.

    Raises the first one's error, if any; it says which interface it was, and whether another one builds the TD.
    """
    runs = (negotiate(child, setup) for child, setup in zip(children, setups, strict=True))
    interfaces = [setup.simulation.interface if setup.simulation else "own" for setup in setups]
    results = dict(zip(interfaces, await asyncio.gather(*runs, return_exceptions=True), strict=True))
    reports = {interface: result for interface, result in results.items() if isinstance(result, Report)}
    for interface, result in results.items():
        if isinstance(result, TdxCpuidError):
            result.args = (f"with KVM's {interface} interface: {result}",)
            if others := [f"--kvm {other}" for other in reports]:
                result.hint = " ".join([result.hint, f"{' and '.join(others)} builds the TD"]).strip()
        if isinstance(result, BaseException):
            raise result
    return list(reports.values())


async def attach(path: str, cpu: str, timeout: float, guest: Guest = LINUX) -> Report:
    """Reconcile a TD that already runs under a patched QEMU: the read-only steps over its QMP socket."""
    async with connect(path, timeout) as session:
        await session.require_patches()
        conversation = Conversation(session, Stage.RUNNING)
        config = await conversation.config()
        vcpus = await conversation.read_back()
        version = session.qemu_version
    if not vcpus:
        raise QemuError("QEMU reports no vCPU")
    asked = vcpus[0].requested
    configurable = to_cpuid(config.cpuid)
    choice = Choice(asked.attributes, asked.xfam, POLICIES["model"](to_cpuid(asked.cpuid), configurable))
    subject = Subject(
        path,
        "not observed",
        cpu,
        f"{len(vcpus)}",
        machine="as it runs",
        wish=Wish(source="not observed"),
        guest=guest,
    )
    known = ["the TD was there before: its choice is taken to be what its -cpu model asked for"]
    return report_on(subject, Reading(version, config, choice, vcpus, known), referee(None, None))


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
