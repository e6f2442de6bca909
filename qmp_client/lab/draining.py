"""An operator's wish that a host takes no more jobs of its pool, or takes them again, and what the host makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qmp_client.errors import UsageError, nearest
from qmp_client.lab import topics
from qmp_client.lab.broker import Connection
from qmp_client.lab.hearing import Heard, hear
from qmp_client.lab.wire import Drain, Status
from qmp_client.report.console import many

SOME = 10
"""How many hosts are named to somebody who named none of them."""


class Draining:
    """One wish about one host."""

    def __init__(self, lab: str, host: str, *, drain: bool, wait: bool) -> None:
        """``drain``: no more jobs, or jobs again; ``wait``: until it is so, or only until the host has been told."""
        self._lab = lab
        self._host = host
        self._drain = drain
        self._wait = wait
        self._states: dict[str, Status] = {}
        self._left = 0
        """How many jobs the host was last said to finish."""
        self.told = False
        """Whether the broker has the wish."""

    async def run(self, connection: Connection, tell: Callable[[str], None]) -> str:
        """Say it and see it done; return what became of it. ``tell`` is given sentences meanwhile.

        Raises UsageError for a host that the lab has not, MqttError when the connection breaks.
        """
        said = hear(connection, self._lab, topics.status(self._lab, topics.EVERY))
        while True:
            heard = await anext(said)
            if heard is not None:
                self._note(heard)
            elif nothing_to_wait_for := await self._say(connection):
                return nothing_to_wait_for
            if self.told and self._states[self._host].state == ("drained" if self._drain else "online"):
                return f"{self._host} {'is drained' if self._drain else 'takes jobs again'}"
            if self.told and (left := self._news()):
                tell(f"{self._host} finishes {many(left, 'job')}")

    async def _say(self, connection: Connection) -> str:
        """Leave the wish with the broker, now that it is known which hosts there are; say why not to wait, if so."""
        if self._host not in self._states:
            raise UsageError(
                f"the lab {self._lab} has no host {self._host}", hint=_which(self._host, sorted(self._states))
            )
        await connection.say(topics.drain(self._lab, self._host), Drain(drain=self._drain), retain=True)
        self.told = True
        if self._states[self._host].state == "offline":
            return f"{self._host} is offline; it learns of it when it comes back"
        return "" if self._wait else f"{self._host} has been told"

    def _note(self, heard: Heard) -> None:
        status = heard.message
        if isinstance(status, Status) and heard.topic == topics.status(self._lab, status.host):
            self._states[status.host] = status

    def _news(self) -> int:
        """How many jobs the host has still to finish, if that was not said yet."""
        status = self._states[self._host]
        left = status.running + status.waiting
        if status.state != "draining" or not self._drain or left == self._left:
            return 0
        self._left = left
        return left


def _which(host: str, known: Sequence[str]) -> str:
    """Which hosts there are, for somebody who named another one."""
    more = f" and {len(known) - SOME} more" if len(known) > SOME else ""
    return nearest(host, known) or f"it knows {', '.join(known[:SOME]) or 'none'}{more}"
