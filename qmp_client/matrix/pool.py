"""Workers side by side: give each a cell when it is free, take results as they come, leave nothing behind."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from qmp_client.matrix.result import Result
from qmp_client.matrix.worker import ANSWER, ORDER, Work, start

PATIENCE = 6.0
"""Seconds in which an interrupted worker stops its QEMU; it gives QEMU 2 s to end and 2 s to be killed."""


class _Worker(NamedTuple):
    pid: int
    socket: socket.socket


class Pool:
    """Runs cells in ``jobs`` processes; as a context manager, so that they are gone at the end of the block."""

    def __init__(self, work: Work, jobs: int) -> None:
        self._work = work
        self._jobs = jobs
        self._idle: list[_Worker] = []
        self._busy: dict[_Worker, int] = {}
        """Which cell each worker has."""

    def __enter__(self) -> Pool:
        try:
            for _ in range(self._jobs):
                self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, numbers: list[int], tick: float) -> Iterator[Result | None]:
        """Yield each result as it comes, and None at least every ``tick`` seconds."""
        left = list(reversed(numbers))
        while left or self._busy:
            while left and self._idle:
                self._order(self._idle.pop(), left.pop())
            ready = select.select([worker.socket for worker in self._busy], [], [], tick)[0]
            if not ready:
                yield None
            for worker in [worker for worker in self._busy if worker.socket in ready]:
                yield self._take(worker)

    def _start(self) -> None:
        others = [worker.socket for worker in (*self._idle, *self._busy)]
        self._idle.append(_Worker(*start(self._work, others)))

    def _order(self, worker: _Worker, number: int) -> None:
        self._busy[worker] = number
        try:
            worker.socket.sendall(ORDER.pack(number))
        except OSError:
            return  # it died; select says so

    def _take(self, worker: _Worker) -> Result:
        number = self._busy.pop(worker)
        try:
            _, size = ANSWER.unpack(_exactly(worker.socket, ANSWER.size))
            line = _exactly(worker.socket, size)
        except (EOFError, OSError):
            return self._bury(worker, number)
        self._idle.append(worker)
        return msgspec.json.decode(line, type=Result)

    def _bury(self, worker: _Worker, number: int) -> Result:
        """Collect a worker that died with a cell, and start another in its place."""
        worker.socket.close()
        os.kill(worker.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        self._start()
        cell, inputs = self._work.cells[number], self._work.inputs[number]
        return Result(cell, 0.0, None, f"the process that ran this cell {how}", 4, inputs)

    def _stop(self) -> None:
        """End every worker: those with a QEMU stop it first. A second Ctrl-C does not cut this short."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        workers = [*self._idle, *self._busy]
        for worker in workers:
            worker.socket.close()  # which ends an idle one
            if worker in self._busy:
                os.kill(worker.pid, signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        for worker in workers:
            pidfd = os.pidfd_open(worker.pid)
            ended = select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]
            os.close(pidfd)
            if not ended:
                os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
        self._idle.clear()
        self._busy.clear()
        signal.signal(signal.SIGINT, before)


def _exactly(connection: socket.socket, size: int) -> bytes:
    """Read that many bytes. Raises EOFError when the other end is closed before."""
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
