"""A guest's serial console: collected, and searched for a line. The guest is not trusted: all sizes are bounded."""

from __future__ import annotations

import asyncio
import re
import socket
from codecs import getincrementaldecoder
from collections import deque

LONGEST_LINE = 4096
"""Characters; a longer line counts as several."""
CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI, as ECMA-48 has it: colours, the cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC: titles
    r"|\x1b[ -/]*[0-~]"  # what else begins with ESC
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
NEW_LINE = re.compile(r"\r*\n|\r+(?!\n|\r|\Z)")
"""A carriage return at the end may belong to a line feed that has not come yet."""


class Console:
    """What a guest wrote so far. ``found`` is set when a line matches."""

    def __init__(self, pattern: str, kept: int) -> None:
        """``pattern`` is a regular expression, or empty; ``kept`` is in characters. Raises re.error."""
        self._pattern = re.compile(pattern) if pattern else None
        self._kept = kept
        self._lines: deque[str] = deque()
        self._length = 0
        self._rest = ""
        """The line that is being written."""
        self._decode = getincrementaldecoder("utf-8")("replace").decode
        self.written = 0
        """Bytes."""
        self.line = ""
        """The line that matched, as far as it was written."""
        self._goes_on = False
        """Whether that line is still being written."""
        self.found = asyncio.Event()

    @property
    def text(self) -> str:
        """The last part of it, at most ``kept`` characters."""
        return "\n".join([*self._lines, clean(self._rest)])[-self._kept :]

    def feed(self, data: bytes) -> None:
        """Take what the guest wrote. A line counts while it is being written, too: a prompt has no end."""
        self.written += len(data)
        *lines, self._rest = NEW_LINE.split(self._rest + self._decode(data))
        while len(self._rest) > LONGEST_LINE:
            lines.append(self._rest[:LONGEST_LINE])
            self._rest = self._rest[LONGEST_LINE:]
        for line in map(clean, lines):
            self._keep(line)
            self._look_at(line)
            self._goes_on = False
        self._look_at(clean(self._rest))

    async def read(self, end: socket.socket) -> None:
        """Feed everything that comes until QEMU hangs up."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(end, 1 << 16)
            except ConnectionResetError:
                return
            if not data:
                return
            self.feed(data)

    def _keep(self, line: str) -> None:
        self._lines.append(line)
        self._length += len(line) + 1
        while self._length - len(self._lines[0]) - 1 > self._kept:
            self._length -= len(self._lines.popleft()) + 1

    def _look_at(self, line: str) -> None:
        if self._goes_on:
            self.line = line
        elif self._pattern is not None and not self.found.is_set() and self._pattern.search(line):
            self.line = line
            self._goes_on = True
            self.found.set()


def clean(text: str) -> str:
    """A line without control characters and terminal sequences."""
    return CONTROL.sub("", text)
