"""What the simulation says to people, on standard error. Nothing else depends on it."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Print a line, if it can be: a full disk, a closed pipe or no standard error at all is no reason to stop."""
    stream = sys.stderr
    try:
        line = f"{text}\n".encode(stream.encoding, "backslashreplace")
        descriptor = stream.fileno()
        while line:  # past the stream: what it could not write, it would try again, and at the end
            line = line[os.write(descriptor, line) :]
    except (OSError, ValueError, AttributeError):
        return
