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


def json(what: str, path: Path, wanted: str, hint: str = "") -> Any:
    """The value in a file of JSON (see ``plugin.strict_json``) that is to be ``wanted`` ("a saved report").

    Raises UsageError.
    """
    from plugin import strict_json  # noqa: PLC0415  it loads `json`

    try:
        return strict_json.from_json(content(what, path))
    except strict_json.NotJson as error:
        raise UsageError(f"{path} is not {wanted}: {error}", hint=hint) from error


def text(what: str, path: Path, wanted: str, hint: str = "") -> str:
    """The text in UTF-8 of a file that is to be a ``wanted``. Raises UsageError."""
    data = content(what, path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text, and so no {wanted}", hint=hint) from error


def toml(what: str, path: Path) -> dict[str, Any]:
    """The tables of a file of TOML, their numbers finite. Raises UsageError."""
    import tomllib  # noqa: PLC0415  it loads `re` and `datetime`

    from plugin import strict_json  # noqa: PLC0415  it loads `json`

    data = content(what, path)
    try:
        tables = tomllib.loads(strict_json.text(data))
        strict_json.check(tables)
    except (tomllib.TOMLDecodeError, strict_json.NotJson) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: it has a number of thousands of digits") from error
    except RecursionError as error:
        raise UsageError(f"{path} is not TOML: it is nested too deeply") from error
    return tables
