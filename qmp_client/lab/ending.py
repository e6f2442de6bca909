"""An agent that is to end does end, whatever it is stuck in."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading

from qmp_client.lab.service_manager import STOPPING, notify

LONGEST = 30.0
"""Seconds for an end in order: jobs are stopped (10 at most), and a broker that is stuck is given up (12)."""
STUCK = 5
"""The exit status of an agent that did not end in order."""


class Ending:
    """From the first reason to end until the process is gone."""

    def __init__(self, longest: float = LONGEST) -> None:
        self._longest = longest
        self._timer: threading.Timer | None = None

    def begin(self) -> None:
        """Give the agent its last seconds; a second reason gives it no more."""
        if self._timer is None:
            notify(STOPPING)
            self._timer = threading.Timer(self._longest, self._give_up)
            self._timer.daemon = True
            self._timer.start()

    def over(self) -> None:
        """The agent has ended in order."""
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self) -> None:
        """End without anybody's help: neither the event loop nor another thread may be in a state to give any."""
        said = f"CRITICAL did not end within {self._longest:g} s, and is ended; what it promised is stored\n"
        os.write(2, said.encode())
        faulthandler.dump_traceback(sys.__stderr__ or 2)
        os._exit(STUCK)
