"""A running QEMU seen from asyncio: waiting for its end, quoting its complaints, and stopping it for certain."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from qmp_client.qemu.spawn import Child


class Process:
    """A QEMU that has been started."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._status: int | None = None
        """The wait status, once it has been collected."""

    @property
    def ending(self) -> str:
        """How the process ended, as part of a sentence; empty while it runs."""
        if self._status is None:
            return ""
        code = os.waitstatus_to_exitcode(self._status)
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else _exited(code)

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, None while the process runs."""
        return None if self._status is None else os.waitstatus_to_exitcode(self._status)

    def complaints(self) -> list[str]:
        """Standard error so far, or the last 64 KiB of it, in lines."""
        size = os.lseek(self._child.stderr, 0, os.SEEK_CUR)  # shared with the process that writes
        first = max(0, size - (1 << 16))
        text = os.pread(self._child.stderr, size - first, first).decode(errors="replace")
        return text.splitlines()

    def record(self) -> bytes:
        """What the simulated KVM served, as JSON; empty on hardware or before the end."""
        return os.pread(self._child.record, os.fstat(self._child.record).st_size, 0)

    async def ended(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the process to end; say whether it has."""
        if self._status is not None:
            return True
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        pidfd = os.pidfd_open(self._child.pid)
        loop.add_reader(pidfd, over.set)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await over.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        if over.is_set():
            _, self._status = os.waitpid(self._child.pid, os.WNOHANG)  # noqa: ASYNC222  it has ended
        return self._status is not None

    async def stop(self) -> None:
        """End the process: ask, then insist."""
        for insistence in (signal.SIGTERM, signal.SIGKILL):
            if self._status is None:
                os.kill(self._child.pid, insistence)
                await self.ended(2)

    def kill(self) -> None:
        """End the process at once, when there is no event loop left to wait in."""
        if self._status is None:
            os.kill(self._child.pid, signal.SIGKILL)
            _, self._status = os.waitpid(self._child.pid, 0)


@asynccontextmanager
async def watching(child: Child) -> AsyncIterator[Process]:
    """See that the child and its descriptors are gone when the block ends, however it ends."""
    process = Process(child)
    try:
        yield process
    finally:
        try:
            await asyncio.shield(process.stop())
        finally:
            process.kill()
            child.monitor.close()
            os.close(child.stderr)
            os.close(child.record)


def _exited(code: int) -> str:
    if code > 128:  # a supervisor passes a signal on as a shell does
        with suppress(ValueError):
            return f"was killed by {signal.Signals(code - 128).name}"
    return f"exited with status {code}"
