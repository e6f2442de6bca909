"""Waiting for what another process does: for the event itself, never for a time that should be enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds after which a test gives up; only a hang takes as long, so nothing is concluded from how long things take."""
LONGER_AND_LONGER = (1, 8, 64)
"""Seconds for a time limit that a test is about: the first that is long enough for all that comes before it here."""
PAUSE = 0.01


def until(condition: Callable[[], T], what: str) -> T:
    """Wait until a condition is true; return its value. `what` is told when it never is."""
    give_up = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < give_up, f"after {PATIENCE:g} s it is still not so: {what}"
        time.sleep(PAUSE)
    return value


async def eventually(condition: Callable[[], T], what: str) -> T:
    """As `until`, while other tasks go on."""
    give_up = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < give_up, f"after {PATIENCE:g} s it is still not so: {what}"
        await asyncio.sleep(PAUSE)
    return value


def state(pid: int) -> str:
    """The state letter of a process as proc(5) has it; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def gone(pid: int) -> bool:
    """Wait until a process has ended.

    An orphan is left to the system's first process, which in a container often reaps nobody.
    """
    return until(lambda: state(pid) in ("", "Z", "X"), f"process {pid} has ended")
