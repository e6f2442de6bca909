"""Starting QEMU: on this host's KVM, or under the simulated one.

Forks, so it is called before there are threads; and imports little, because what comes before the fork delays QEMU,
while what comes after it runs beside QEMU's own start.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from plugin.kvm.launch import supervise
from plugin.processes.child import FAILED, die_with_parent, fork, take_default_action
from plugin.processes.signals import signal
from qmp_client.errors import MissingError, QemuError

if TYPE_CHECKING:
    from plugin.tdx_module import TdxHost

MOST_COMPLAINTS = 16 << 20
"""Bytes of standard error that are kept; a QEMU that writes more is told that there is no room (EPERM)."""

SPARE = 16
"""Descriptors that a negotiation opens besides; who may not have as many is told before a QEMU is there."""


class Simulation(NamedTuple):
    """Which simulated TDX KVM to run on."""

    host: TdxHost
    interface: str = "upstream"
    """How KVM is asked about a TD's CPUID: one of ``plugin.kvm.launch.DIALECTS``."""
    faults: tuple[str, ...] = ()
    """What goes wrong, as ``plugin.kvm.dialects.faults`` spells it."""


class Child(NamedTuple):
    """A started QEMU: the process that ends when QEMU does, its monitor and its complaints."""

    pid: int
    """QEMU itself, or the supervisor that exits with QEMU's own status."""
    monitor: socket.socket
    """Our end of the QMP connection."""
    stderr: int
    """An anonymous file that collects standard error, up to its position and MOST_COMPLAINTS."""
    record: int
    """An anonymous file into which the simulation, if there is one, writes what it served, as JSON."""


def spawn(
    arguments: Callable[[int], Sequence[str]], simulation: Simulation | None, inherited: Sequence[socket.socket] = ()
) -> Child:
    """Start QEMU; ``arguments`` makes its command line from the number of the monitor's descriptor.

    QEMU gets the ``inherited`` sockets, too, under the numbers that they have here.

    The child has a session of its own, so that Ctrl-C reaches only this process, which then stops the child in
    order; and it dies with this process, however that ends. Raises QemuError when there can be no further process,
    MissingError where what is shared with it cannot be made.
    """
    ours, theirs, stderr, record = _shared()

    def become(parent: int) -> int:
        ours.close()
        _begin(parent, stderr)
        argv = list(arguments(theirs.fileno()))
        passed = [one.fileno() for one in (theirs, *inherited)]
        for number in passed:
            os.set_inheritable(number, True)
        return _simulated(simulation, argv, record, passed) if simulation else _on_hardware(argv)

    try:
        pid = fork(become)
    except OSError as error:
        ours.close()
        os.close(stderr)
        os.close(record)
        raise QemuError(
            f"no process for QEMU could be started: {error.strerror}", hint="ulimit -u says how many there may be"
        ) from error
    finally:
        theirs.close()
    return Child(pid, ours, stderr, record)


def _shared() -> tuple[socket.socket, socket.socket, int, int]:
    """Both ends of the monitor, and the anonymous files for standard error and the record. Raises MissingError."""
    with ExitStack() as opened:
        try:
            ours, theirs = socket.socketpair()
            opened.callback(ours.close)
            opened.callback(theirs.close)
            stderr = os.memfd_create("qemu-stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            opened.callback(os.close, stderr)
            _bound(stderr)
            record = os.memfd_create("kvm-record")
            opened.callback(os.close, record)
            spare = [os.dup(record) for _ in range(SPARE)]
        except OSError as error:
            raise MissingError(
                f"QEMU's monitor and the files beside it cannot be made: {error.strerror}",
                hint=_WHY.get(error.errno or 0, ""),
            ) from error
        opened.pop_all()
    for number in spare:
        os.close(number)
    return ours, theirs, stderr, record


_WHY = {
    errno.EMFILE: "ulimit -n 1024 lets this command open as many files as it needs",
    errno.EFBIG: f"ulimit -f {MOST_COMPLAINTS >> 10} lets a file be as large as it has to be",
    errno.EPERM: "memfd_create(2) is denied here, perhaps by a container's seccomp profile",
    errno.ENOSYS: "memfd_create(2) is missing or denied here",
}


def _bound(descriptor: int) -> None:
    """See to it that standard error cannot outgrow its bound: QEMU may write errors for ever."""
    os.ftruncate(descriptor, MOST_COMPLAINTS)  # takes no memory; how far it was written is the file's position
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)


def _begin(parent: int, stderr: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1):
        os.dup2(null, target)
    os.dup2(stderr, 2)  # what fails from here on is quoted
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.setsid()
    die_with_parent(parent)
    take_default_action(signal.SIGINT, signal.SIGTERM)


def _on_hardware(argv: list[str]) -> int:
    os.execv(argv[0], argv)
    return FAILED


def _simulated(simulation: Simulation, argv: list[str], record: int, passed: Sequence[int]) -> int:
    return supervise(
        lambda: simulation.host,
        argv,
        dialect=simulation.interface,
        faults=simulation.faults,
        pass_fds=passed,
        record_fd=record,
    )
