"""The guest's QEMU agent (qemu-ga), over the socket behind its virtio-serial port.

Source: QEMU's qga/qapi-schema.json. The guest is not trusted: what is no answer is passed over, and sizes are bounded.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Mapping
from contextlib import suppress

LONGEST_ANSWER = 1 << 20
"""Bytes."""
AGAIN = 1.0
"""Seconds after which an agent that does not answer is called again."""
DELIMITER = b"\xff"
"""In front of a ``guest-sync-delimited``, it ends whatever half a request there was before; and of its answer."""


class GuestAgent:
    """One conversation. The agent may not run yet; then what is sent waits for it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._ids = itertools.count(1)
        self._heard = bytearray()

    async def ready(self) -> str:
        """Wait until the agent answers; return its version."""
        called: set[int] = set()
        while True:
            called.add(await self._call())
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN):
                    while (await self._answer()).get("return") not in called:
                        pass
                    break
        # It may answer the other calls only now; behind the answer to this one comes what is asked for.
        last = await self._call()
        while (await self._answer()).get("return") != last:
            pass
        await self._send({"execute": "guest-info"})
        about = (await self._answer()).get("return")
        return str(about.get("version", "unknown")) if isinstance(about, dict) else "unknown"

    async def shut_down(self) -> None:
        """Ask the guest to switch itself off; there is no answer to this."""
        await self._send({"execute": "guest-shutdown"})

    async def _call(self) -> int:
        number = next(self._ids)
        await self._send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, before=DELIMITER)
        return number

    async def _send(self, request: Mapping[str, object], before: bytes = b"") -> None:
        await asyncio.get_running_loop().sock_sendall(self._end, before + json.dumps(request).encode() + b"\n")

    async def _answer(self) -> Mapping[str, object]:
        """The next line that is a JSON object. Raises ConnectionError when QEMU has hung up."""
        while True:
            while b"\n" not in self._heard:
                data = await asyncio.get_running_loop().sock_recv(self._end, 1 << 16)
                if not data:
                    raise ConnectionResetError("QEMU has closed the guest agent's port")
                self._heard += data
                if len(self._heard) > LONGEST_ANSWER:
                    self._heard.clear()
            line, _, rest = self._heard.partition(b"\n")
            self._heard = rest
            with suppress(ValueError, RecursionError):
                said = json.loads(line.rpartition(DELIMITER)[2])
                if isinstance(said, dict):
                    return said
