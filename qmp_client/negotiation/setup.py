"""What a TD is made from, and starting its QEMU.

Imports little, as ``qmp_client.qemu.spawn`` does: what comes before the fork delays QEMU.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from plugin.tdx_module import TdxHost
from plugin.tdx_module.guests import LINUX, Guest
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu.command_line import Machine, arguments
from qmp_client.qemu.spawn import Child, Simulation, spawn


class Setup(NamedTuple):
    """Everything that decides how one TD comes about."""

    machine: Machine
    simulation: Simulation | None
    """None: this host's TDX."""
    wish: Wish
    timeout: float
    """Seconds for each step."""
    further: tuple[str, ...] = ()
    """More words of QEMU's command line."""
    guest: Guest = LINUX
    """Who is to execute CPUID in the TD."""
    own: Callable[[int], Sequence[str]] | None = None
    """The user's own command line, made from the number of the monitor's descriptor, in place of the machine's."""

    @property
    def host(self) -> TdxHost | None:
        """What is simulated; None on hardware."""
        return self.simulation.host if self.simulation else None

    def command_line(self, monitor_fd: int) -> list[str]:
        """QEMU's command line."""
        words = self.own(monitor_fd) if self.own else arguments(self.machine, monitor_fd)
        return [*words, *self.further]


def start(setup: Setup, inherited: Sequence[socket.socket] = ()) -> Child:
    """Start the TD's QEMU, held in preconfig, for ``run.negotiate``. QEMU gets the ``inherited`` sockets, too.

    Forks, so it is called before there are threads. Raises QemuError when there can be no further process.
    """
    return spawn(setup.command_line, setup.simulation, inherited)
