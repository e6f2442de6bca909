"""A TD that is negotiated, and a guest that runs: in the TD itself, or emulated where a simulated TD runs no code."""

from __future__ import annotations

from qmp_client.boot.devices import channels, words
from qmp_client.boot.emulated import emulate
from qmp_client.boot.model import Booted, BootWish
from qmp_client.boot.run import boot
from qmp_client.negotiation.run import leave_it_held, negotiate
from qmp_client.negotiation.setup import Setup, start
from qmp_client.qmp.session import Session
from qmp_client.report.model import Report


async def negotiate_and_boot(setup: Setup, wish: BootWish, *, in_the_td: bool) -> tuple[Report, Booted]:
    """Negotiate, read the TD back and boot, with the memory that ``wish`` has.

    ``in_the_td``: the guest runs in the TD that was read, which only makes sense on hardware. Otherwise it is
    emulated when the TD is gone. Raises a TdxCpuidError when there is no TD, or when QEMU does not start the guest; a
    guest that is not up is no error.
    """
    setup = setup._replace(machine=setup.machine._replace(memory=f"{wish.memory_mib}M"))
    ran: list[Booted] = []
    with channels() as ends:

        async def run(session: Session) -> None:
            ran.append(await boot(session, ends, wish, "td"))

        devices = tuple(words(wish, ends.inherited)) if in_the_td else ()
        held = setup._replace(further=devices + setup.further)
        child = start(held, ends.inherited)
        ends.handed_over()
        report = await negotiate(child, held, with_the_td=run if in_the_td else leave_it_held)
    if not in_the_td:
        ran.append(await emulate(setup.machine, wish, setup.further, setup.timeout))
    return report, ran[0]
