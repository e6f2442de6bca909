"""A TD that is negotiated, and then runs its guest: on hardware, the guest in the TD itself."""

from __future__ import annotations

from collections.abc import Sequence

from qmp_client.boot.devices import channels, words
from qmp_client.boot.emulated import emulate
from qmp_client.boot.model import Booted, Wish
from qmp_client.boot.run import boot
from qmp_client.negotiation.run import negotiate
from qmp_client.negotiation.wish import Wish as Choosing
from qmp_client.qemu.command_line import Machine, arguments
from qmp_client.qemu.spawn import Simulation, spawn
from qmp_client.qmp.session import Session
from qmp_client.report.model import Report


async def negotiate_and_boot(
    machine: Machine,
    choosing: Choosing,
    simulation: Simulation | None,
    wish: Wish,
    options: Sequence[str],
    timeout: float,
) -> tuple[Report, Booted]:
    """Negotiate, read the TD back and boot. ``options`` are further words of QEMU's command line.

    On a simulation, which runs no guest code, the guest runs in emulation when the TD has been read. Raises a
    TdxCpuidError when there is no TD, or when QEMU does not start the guest; a guest that is not up is no error.
    """
    machine = machine._replace(memory=f"{wish.memory_mib}M")
    if simulation is None:
        return await boot_the_td(machine, choosing, None, wish, options, timeout)
    child = spawn(lambda monitor: [*arguments(machine, monitor), *options], simulation)
    report = await negotiate(child, machine, choosing, simulation, timeout)
    return report, await emulate(machine, wish, options, timeout)


async def boot_the_td(
    machine: Machine,
    choosing: Choosing,
    simulation: Simulation | None,
    wish: Wish,
    options: Sequence[str],
    timeout: float,
) -> tuple[Report, Booted]:
    """Negotiate a TD and let the guest run in it."""
    booted: list[Booted] = []
    with channels() as ends:

        async def run(session: Session) -> None:
            booted.append(await boot(session, ends, wish, "td"))

        child = spawn(
            lambda monitor: [*arguments(machine, monitor), *words(wish, ends.inherited), *options],
            simulation,
            ends.inherited,
        )
        ends.handed_over()
        report = await negotiate(child, machine, choosing, simulation, timeout, with_the_td=run)
    return report, booted[0]
