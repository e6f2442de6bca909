"""Where a baseline lies, and reading it."""

from __future__ import annotations

import re
from pathlib import Path

from qmp_client.baseline.text import Baseline
from qmp_client.baseline.text import read as read_text
from qmp_client.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def place(folder: Path, name: str) -> Path:
    """The file of the baseline of that name. Raises UsageError for what is no name."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a baseline", hint="letters, digits, dots, dashes and underscores")
    return folder / f"{name}.txt"


def read(path: Path) -> Baseline:
    """Read a baseline. Raises UsageError for a file that cannot be read or is none."""
    try:
        return read_text(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UsageError(f"the baseline {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text, and so no baseline", hint="tdx-cpuid baseline save writes one") from error
