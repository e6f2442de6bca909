"""Documents that a user names, read: their bytes, JSON or TOML. What is wrong with one becomes a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plugin import document
from qmp_client.errors import UsageError


def content(what: str, path: Path, limit: int = document.LIMIT) -> bytes:
    """The bytes of ``what`` ("the grid"), at most ``limit``. Raises UsageError."""
    try:
        return document.read(path, limit)
    except document.Unreadable as error:
        raise UsageError(f"{what} {path} cannot be read: {error}") from error


def toml(what: str, path: Path) -> dict[str, Any]:
    """The tables of a file of TOML, their numbers finite. Raises UsageError."""
    import tomllib  # noqa: PLC0415  it loads `re` and `datetime`

    data = content(what, path)
    try:
        tables = tomllib.loads(document.text(data))
        document.check(tables)
    except (ValueError, document.NotJson) as error:  # TOMLDecodeError, and a number of thousands of digits
        raise UsageError(f"{path} is not TOML: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path} is not TOML: it is nested too deeply") from error
    return tables
