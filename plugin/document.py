"""A document that a user names: its bytes, whatever the path leads to, and the JSON in them. Errors are half sentences.

Loaded only where there is such a document: what comes with the project is read by `plugin.tdx_module.json_file`.
"""

from __future__ import annotations

import json
import os
import select
import stat
from math import isfinite

from plugin.typing import Any

LIMIT = 64 << 20
"""Bytes of the largest document that is looked at, unless its reader says otherwise."""
DEEPEST = 100
"""Levels of nesting; the deepest document of the project's own has 6."""


class Unreadable(Exception):
    """The bytes cannot be had; ``str()`` follows "cannot be read: "."""


class NotJson(Exception):
    """The bytes are no document as the project means it; ``str()`` follows "is not JSON: "."""


def read(path: str | os.PathLike[str], limit: int = LIMIT) -> bytes:
    """Read a file, or a pipe that somebody writes into (``<(command)`` in a shell). Raises Unreadable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise Unreadable(error.strerror) from error
    except ValueError as error:  # a NUL in the path
        raise Unreadable(str(error)) from error
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise Unreadable("it is a folder")
        if not stat.S_ISREG(kind) and not stat.S_ISFIFO(kind):
            raise Unreadable("it is no regular file")
        content = _all(descriptor, limit)
        if not content and stat.S_ISFIFO(kind):
            raise Unreadable("it is a pipe that nobody writes into")
    except OSError as error:
        raise Unreadable(error.strerror) from error
    finally:
        os.close(descriptor)
    if len(content) > limit:
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
            select.select([descriptor], [], [])
            continue
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def text(data: bytes) -> str:
    """The text in UTF-8. Raises NotJson."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise NotJson("it is text in UTF-16, not in UTF-8" if wide else "it is not text in UTF-8") from error


def from_json(data: bytes) -> Any:
    """Decode JSON in UTF-8 whose objects have no key twice and whose numbers are finite and fit 64 bits.

    Raises NotJson for what is other, or nested deeper than DEEPEST.
    """
    words = text(data)
    try:
        value = _DECODER.decode(words)
    except RecursionError as error:
        raise NotJson(_TOO_DEEP) from error
    except json.JSONDecodeError as error:
        raise NotJson(str(error)) from error
    if "\\u" in words or words.count("[") + words.count("{") > DEEPEST:
        check(value)
    return value


def check(value: Any, depth: int = DEEPEST) -> None:
    """Raise NotJson for a decoded value that the rest of the program cannot work with, as in `from_json`."""
    match value:
        case str():
            if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError as error:
                    raise NotJson("it has half of a surrogate pair, which is no character") from error
        case dict() | list():
            if not depth:
                raise NotJson(_TOO_DEEP)
            for part in value:
                check(part, depth - 1)
            if isinstance(value, dict):
                for part in value.values():
                    check(part, depth - 1)
        case bool():
            return
        case int():
            _fitting(value)
        case float():
            if not isfinite(value):
                raise NotJson("it has a number that is infinite, or none at all")


_TOO_DEEP = f"it is nested deeper than {DEEPEST} levels"


def _fitting(number: int) -> int:
    if not -(1 << 63) <= number < 1 << 64:
        raise NotJson("it has a number that does not fit 64 bits")
    return number


def _integer(digits: str) -> int:
    return _fitting(int(digits) if len(digits) <= 20 else 1 << 64)


def _float(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise NotJson(f"it has the number {digits[:20]}, which is infinite")
    return number


def _constant(name: str) -> float:
    raise NotJson(f"it has {name}, which JSON has not")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise NotJson(f"it has the key {twice[:60]!a} twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
