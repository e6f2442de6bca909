"""Reads the package's own tables."""

from __future__ import annotations

from plugin.typing import Any


class _Plain:
    """How CPython's scanner shall read numbers and objects: as `json.loads` does when nothing else is asked for."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_int = int
    parse_float = parse_constant = float


try:
    # `json` takes 4 ms to load with all that it imports, the scanner inside it nothing.
    from _json import make_scanner

    _scan = make_scanner(_Plain)  # type: ignore[arg-type]
except ImportError:  # another Python than CPython
    from json import JSONDecoder

    _scan = JSONDecoder().raw_decode  # type: ignore[assignment]


def read_json(path: str) -> Any:
    """Return what a file of ASCII holds, which begins with its value. Raises OSError, ValueError."""
    with open(path, "rb") as file:
        text = file.read().decode("ascii")
    try:
        value, _ = _scan(text, 0)
    except StopIteration as end:  # the scanner's word for "here is no value"
        raise ValueError(f"no value at character {end.value}") from end
    return value
