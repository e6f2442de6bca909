"""Ends what a command has left behind."""

from __future__ import annotations

import os

from plugin.kvm.supervisor import kernel
from plugin.processes.signals import signal


def kill_descendants() -> None:
    """Kill and reap every child of this process, and theirs as they are handed to us (we are their subreaper)."""
    try:
        while True:
            ended, _ = os.waitpid(-1, os.WNOHANG | kernel.WALL)
            if not ended:
                _kill_children()
                os.waitpid(-1, kernel.WALL)
    except ChildProcessError:
        return  # none is left, as usual from the start: then /proc is not searched


def _kill_children() -> None:
    for pid in _children():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _children() -> list[int]:
    parent = str(os.getpid()).encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The name in parentheses may hold anything; state and parent follow it.
                if file.read().rpartition(b")")[2].split()[1] == parent:
                    found.append(int(name))
        except (OSError, IndexError):
            continue  # it has ended
    return found
