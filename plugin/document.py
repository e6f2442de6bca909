"""The bytes of a document that a user names, whatever its path leads to. What is wrong is half a sentence."""

from __future__ import annotations

import os
import stat

LIMIT = 64 << 20
"""Bytes of the largest document that is looked at, unless its reader says otherwise."""


class Unreadable(Exception):
    """The bytes cannot be had; ``str()`` follows "cannot be read: "."""


def name(path: str | os.PathLike[str]) -> str:
    """A path as text in UTF-8; a byte that is none is shown by its number."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read(path: str | os.PathLike[str], limit: int = LIMIT) -> bytes:
    """Read a file, or a pipe that somebody writes into (``<(command)`` in a shell). Raises Unreadable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise Unreadable(error.strerror) from error
    except ValueError as error:  # a NUL in the path
        raise Unreadable(str(error)) from error
    try:
        status = os.fstat(descriptor)
        kind = status.st_mode
        if stat.S_ISDIR(kind):
            raise Unreadable("it is a folder")
        if not stat.S_ISREG(kind) and not stat.S_ISFIFO(kind):
            raise Unreadable("it is no regular file")
        content = b"" if status.st_size > limit else _all(descriptor, limit)
        if not content and stat.S_ISFIFO(kind):
            raise Unreadable("it is a pipe that nobody writes into")
    except OSError as error:
        raise Unreadable(error.strerror) from error
    finally:
        os.close(descriptor)
    if max(status.st_size, len(content)) > limit:
        raise Unreadable(f"it has more than {limit >> 20} MiB")
    return content


def _all(descriptor: int, limit: int) -> bytes:
    """Read to the end, or to the first byte too many."""
    parts: list[bytes] = []
    left = limit + 1
    while left > 0:
        try:
            part = os.read(descriptor, min(left, 1 << 20))
        except BlockingIOError:  # a pipe with a writer that has written nothing yet
            import select  # noqa: PLC0415  few documents are pipes, and start-up counts

            select.select([descriptor], [], [])
            continue
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
