"""Where a baseline lies, and reading it."""

from __future__ import annotations

import re
from pathlib import Path

from qmp_client import given
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
    hint = "tdx-cpuid baseline save writes one"
    return read_text(given.text("the baseline", path, "baseline", hint), str(path))
