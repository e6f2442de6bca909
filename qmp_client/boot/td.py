"""A TD that is negotiated, and a guest that runs: in the TD itself, or emulated where a simulated TD runs no code."""

from __future__ import annotations

from collections.abc import Sequence

from qmp_client.boot.devices import channels, words
from qmp_client.boot.emulated import emulate
from qmp_client.boot.model import Booted, BootWish
from qmp_client.boot.run import boot
from qmp_client.negotiation.run import leave_it_held, negotiate
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu.command_line import Machine, arguments
from qmp_client.qemu.spawn import Simulation, spawn
from qmp_client.qmp.session import Session
from qmp_client.report.model import Report


async def negotiate_and_boot(
    machine: Machine,
    choosing: Wish,
    simulation: Simulation | None,
    wish: BootWish,
    options: Sequence[str],
    timeout: float,
    *,
    in_the_td: bool,
) -> tuple[Report, Booted]:
    """Negotiate, read the TD back and boot. ``options`` are further words of QEMU's command line.

    ``in_the_td``: the guest runs in the TD that was read, which only makes sense on hardware. Otherwise it is
    emulated when the TD is gone. Raises a TdxCpuidError when there is no TD, or when QEMU does not start the guest; a
    guest that is not up is no error.
    """
    machine = machine._replace(memory=f"{wish.memory_mib}M")
    ran: list[Booted] = []
    with channels() as ends:

        async def run(session: Session) -> None:
            ran.append(await boot(session, ends, wish, "td"))

        more = [*(words(wish, ends.inherited) if in_the_td else []), *options]
        child = spawn(lambda monitor: [*arguments(machine, monitor), *more], simulation, ends.inherited)
        ends.handed_over()
        then = run if in_the_td else leave_it_held
        report = await negotiate(child, machine, choosing, simulation, timeout, with_the_td=then)
    if not in_the_td:
        ran.append(await emulate(machine, wish, options, timeout))
    return report, ran[0]
