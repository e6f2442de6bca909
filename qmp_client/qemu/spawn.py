"""Starting QEMU: on this host's KVM, or under the simulated one.

Forks, so it is called before there are threads; and imports little, because what comes before the fork delays QEMU,
while what comes after it runs beside QEMU's own start.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

PR_SET_PDEATHSIG = 1


class Simulation(NamedTuple):
    """Which simulated TDX KVM to run on: names of a TDX module version, a platform and KVM's interface, and faults."""

    module: str
    platform: str
    interface: str = "upstream"
    faults: tuple[str, ...] = ()
    """What goes wrong, as ``plugin.kvm.device.faults`` spells it."""


class Child(NamedTuple):
    """A started QEMU: the process that ends when QEMU does, its monitor and its complaints."""

    pid: int
    """QEMU itself, or the supervisor that exits with QEMU's own status."""
    monitor: socket.socket
    """Our end of the QMP connection."""
    stderr: int
    """An anonymous file that collects standard error."""
    record: int
    """An anonymous file into which the simulation, if there is one, writes what it served, as JSON."""


def spawn(
    arguments: Callable[[int], Sequence[str]], simulation: Simulation | None, inherited: Sequence[socket.socket] = ()
) -> Child:
    """Start QEMU; ``arguments`` makes its command line from the number of the monitor's descriptor.

    QEMU gets the ``inherited`` sockets, too, under the numbers that they have here.

    The child has a session of its own, so that Ctrl-C reaches only this process, which then stops the child in
    order; and it dies with this process, however that ends.
    """
    ours, theirs = socket.socketpair()
    stderr, record = os.memfd_create("qemu-stderr"), os.memfd_create("kvm-record")
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            _become_child(parent, stderr)
            argv = list(arguments(theirs.fileno()))
            passed = [one.fileno() for one in (theirs, *inherited)]
            for number in passed:
                os.set_inheritable(number, True)
            os._exit(_simulated(simulation, argv, record, passed) if simulation else _on_hardware(argv))
        except BaseException as error:  # nothing may return into the caller's stack twice
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(127)
    theirs.close()
    return Child(pid, ours, stderr, record)


def _become_child(parent: int, stderr: int) -> None:
    os.setsid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)  # the parent died before the line above
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1):
        os.dup2(null, target)
    os.dup2(stderr, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _on_hardware(argv: list[str]) -> int:
    os.execv(argv[0], argv)
    return 127


def _simulated(simulation: Simulation, argv: list[str], record: int, passed: Sequence[int]) -> int:
    from plugin.kvm.launch import supervise  # noqa: PLC0415  only a simulated run needs it

    return supervise(
        simulation.module,
        simulation.platform,
        argv,
        dialect=simulation.interface,
        faults=simulation.faults,
        pass_fds=passed,
        record_fd=record,
    )
