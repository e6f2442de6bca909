"""A process that runs one cell after another. It is forked from a parent that has everything loaded."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from plugin.processes.child import die_with_parent, fork
from plugin.tdx_module import TdxHost
from plugin.tdx_module.guests import Guest
from qmp_client.errors import TdxCpuidError
from qmp_client.matrix.result import Cell, Result
from qmp_client.negotiation.run import negotiate
from qmp_client.negotiation.setup import Setup
from qmp_client.negotiation.setup import start as start_td
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu.command_line import Machine
from qmp_client.qemu.spawn import Simulation
from qmp_client.report.model import Report
from qmp_client.report.policy import Criteria, Policy

ORDER = struct.Struct("<I")
"""What a worker is told: the number of a cell."""
ANSWER = struct.Struct("<II")
"""What it answers: the number, and how many bytes of JSON follow."""


class Work(NamedTuple):
    """Everything that a worker needs to know about a run."""

    cells: Sequence[Cell]
    hosts: Mapping[tuple[str, str], TdxHost]
    """What to simulate for each module version and platform that a cell names."""
    inputs: Sequence[str]
    """``Inputs.of`` each cell."""
    firmware: Path
    wish: Wish
    guest: Guest
    policy: Policy
    timeout: float
    """Seconds for each step of a negotiation."""


def start(work: Work, foreign: Sequence[socket.socket]) -> tuple[int, socket.socket]:
    """Fork a worker; return its process id and the socket to talk to it.

    ``foreign`` are the sockets of other workers, which this one must not keep open. Only SIGINT from the parent ends
    the worker in order: Ctrl-C does not reach it, for it has a session of its own. It dies with the parent.
    Raises TdxCpuidError when there can be no further process.
    """
    ours, theirs = socket.socketpair()

    def begin(parent: int) -> int:
        os.setsid()
        die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for other in (ours, *foreign):
            other.close()
        _serve(work, theirs)
        return 0

    try:
        pid = fork(begin)
    except OSError as error:
        ours.close()
        raise TdxCpuidError(
            f"no process for the cells could be started: {error.strerror}", hint="--jobs says how many there are"
        ) from error
    finally:
        theirs.close()
    return pid, ours


def _serve(work: Work, orders: socket.socket) -> None:
    with asyncio.Runner() as runner:
        while order := orders.recv(ORDER.size):
            number = ORDER.unpack(order)[0]
            line = msgspec.json.encode(runner.run(run_cell(work, number)))
            orders.sendall(ANSWER.pack(number, len(line)) + line)


async def run_cell(work: Work, number: int) -> Result:
    """Run one cell; whatever goes wrong with it becomes its result."""
    cell = work.cells[number]
    started = time.monotonic()

    def result(report: Report | None, error: str | None, exit_code: int) -> Result:
        return Result(cell, round(time.monotonic() - started, 3), report, error, exit_code, work.inputs[number])

    machine = Machine(Path(cell.qemu), work.firmware, cpu=cell.cpu, smp=cell.smp, machine=cell.machine)
    simulation = Simulation(work.hosts[cell.module, cell.platform], cell.kvm)
    setup = Setup(machine, simulation, work.wish, work.timeout, guest=work.guest)
    try:
        report = await negotiate(start_td(setup), setup)
    except TdxCpuidError as error:
        return result(None, error.sentence, error.exit_code)
    except Exception as error:  # a mistake of ours in one cell must not cost the others
        return result(None, f"tdx-cpuid itself failed: {type(error).__name__}: {error}", TdxCpuidError.exit_code)
    return result(report, None, Criteria(work.policy).exit_code(report.lines))
