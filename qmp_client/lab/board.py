"""What a lab looks like from what was heard: hosts, the latest jobs and drift. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from qmp_client.lab.hearing import Heard
from qmp_client.lab.wire import Capabilities, Drift, Progress, Rejection, Status

LATEST = 20
"""How many jobs, drift events and rejections are kept."""


@dataclass
class Host:
    """One host: either part may not have been heard yet."""

    status: Status | None = None
    capabilities: Capabilities | None = None


@dataclass
class Board:
    """A lab. A message that comes again changes nothing."""

    hosts: dict[str, Host] = field(default_factory=dict)
    jobs: dict[str, Progress] = field(default_factory=dict)
    """The latest ones, by id; the one that moved last is the last."""
    drift: deque[Drift] = field(default_factory=lambda: deque(maxlen=LATEST))
    rejections: deque[Rejection] = field(default_factory=lambda: deque(maxlen=LATEST))

    def take(self, heard: Heard) -> bool:
        """Enter a message; say whether the board shows it.

        A message counts only where its sender may speak: a host's own topics have its name in them.
        """
        parts = heard.topic.split("/")
        match heard.message:
            case Status(host=name) if parts[-2:] == [name, "status"]:
                self.hosts.setdefault(name, Host()).status = heard.message
            case Capabilities(host=name) if parts[-2:] == [name, "capabilities"]:
                self.hosts.setdefault(name, Host()).capabilities = heard.message
            case Progress(job=job) if parts[-2:] == ["progress", job]:
                self.jobs.pop(job, None)
                self.jobs[job] = heard.message
                if len(self.jobs) > LATEST:
                    del self.jobs[next(iter(self.jobs))]
            case Rejection(host=name) if parts[-2:] == [name, "rejected"] and heard.message not in self.rejections:
                self.rejections.append(heard.message)
            case Drift() if parts[-2:] == ["events", "drift"] and heard.message not in self.drift:
                self.drift.append(heard.message)
            case _:
                return False
        return True
