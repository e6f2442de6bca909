"""JSON from a user's hands: of what the standard's text leaves open, or `json` lets pass, nothing is taken.

Loaded only where there is such a document: what comes with the project is read by `plugin.tdx_module.json_file`.
"""

from __future__ import annotations

import json
from math import isfinite

from plugin.typing import Any

DEEPEST = 100
"""Levels of nesting; the deepest document of the project's own has 6."""


class NotJson(Exception):
    """The bytes are no document as the project means it; ``str()`` follows "is not JSON: "."""


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
    if words.startswith("\ufeff"):
        raise NotJson("it begins with a byte order mark (BOM), which JSON has not")
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
