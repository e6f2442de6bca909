"""Messages that are above the broker's limit, made smaller: compressed, or else without their large parts. Pure."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import msgspec

from qmp_client.boot.model import Booted
from qmp_client.lab.store import Letter
from qmp_client.lab.wire import Drift, Message, Progress, Rejection, Result, decode, encode

MAGIC = b"\x1f\x8b"
"""How a compressed payload begins, and no JSON."""
SHORT = 200
"""Characters of a text that a cut message has."""
FEW = 10
"""Changed fields that a cut drift event names."""


def forms(letter: Letter, limit: int) -> Iterator[Letter]:
    """The message as it is, compressed, and cut; ``limit`` (bytes, 0: not known) is what the cut one speaks of."""
    yield letter
    yield letter._replace(payload=gzip.compress(letter.payload, mtime=0))
    said = _cut(decode(letter.payload), len(letter.payload), limit)
    if said is not None:
        payload = encode(said)
        yield letter._replace(payload=min(payload, gzip.compress(payload, mtime=0), key=len))


def is_compressed(payload: bytes) -> bool:
    """Whether it is to be expanded before it is read."""
    return payload.startswith(MAGIC)


def expanded(payload: bytes, most: int) -> bytes | None:
    """The payload that was compressed; None for what is none, or has more than ``most`` bytes."""
    whole = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        data = whole.decompress(payload, most)
    except zlib.error:
        return None
    return data if whole.eof else None


def _cut(message: Message, size: int, limit: int) -> Message | None:
    """The message without its large parts; None where it has none."""
    takes = f"at most {limit} bytes" if limit else "no message so large"
    match message:
        case Result():
            reason = f"the broker takes {takes}, so this result of {size} bytes came without its report, which its"
            reason += f" host has kept{'; ' if message.reason else ''}{_short(message.reason)}"
            return msgspec.structs.replace(message, report=None, boot=_without_console(message.boot), reason=reason)
        case Drift():
            likely = f"{message.likely} ({len(message.changes)} fields changed; the broker takes {takes})"
            return msgspec.structs.replace(message, changes=message.changes[:FEW], likely=likely)
        case Progress() | Rejection():
            return msgspec.structs.replace(message, reason=_short(message.reason))
    return None


def _without_console(boot: Booted | None) -> Booted | None:
    if boot is None:
        return None
    return msgspec.structs.replace(boot, console="", why=_short(boot.why), line=_short(boot.line))


def _short(text: str) -> str:
    return text if len(text) <= SHORT else f"{text[:SHORT]}..."
