"""Texts that leave a terminal alone: what is said in a lab comes from whoever may write to the broker. Pure."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from qmp_client.lab.wire import Message

M = TypeVar("M", bound=Message)
SUSPECT = re.compile(rb'[^ -~\t\r\n]|\\[^"\\/nt]')
"""What JSON has in it when something may have to be replaced: no ASCII, or another escape than these."""
KEPT = "\n\t"
"""What a guest's console consists of, besides printable characters."""


def printable(text: str, kept: str = "") -> str:
    """The text with a replacement character for each that is neither printable nor among ``kept``."""
    return "".join(
        character if character.isprintable() or character in kept else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def cleaned(message: M, payload: bytes) -> M:
    """The message with every text in it printable; ``payload`` is what it was read from."""
    if not SUSPECT.search(payload):
        return message
    return msgspec.convert(_cleaned(msgspec.to_builtins(message)), type(message))


def _cleaned(data: Any) -> Any:
    match data:
        case str():
            return printable(data, KEPT)
        case dict():
            return {key: _cleaned(value) for key, value in data.items()}
        case list() | tuple():
            return [_cleaned(value) for value in data]
    return data
