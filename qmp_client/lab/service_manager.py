"""What a service manager such as systemd is told of an agent: sd_notify(3), without its library."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


def notify(state: str) -> None:
    """Tell it, if there is one; nobody waits for an answer."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.setblocking(False)
        manager.sendto(state.encode(), path.replace("@", "\0", 1) if path.startswith("@") else path)


def watchdog() -> float:
    """Seconds in which it wants a sign of life (``WatchdogSec``); 0 when it does not wait for any."""
    microseconds, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or process not in ("", str(os.getpid())):
        return 0
    return int(microseconds) / 1e6
