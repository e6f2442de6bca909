"""What an agent has to say, on its way from the outbox to the broker."""

from __future__ import annotations

import asyncio
import logging
from itertools import islice

import msgspec

from qmp_client.lab import topics
from qmp_client.lab.broker import Connection, NotTaken, TooLarge, Unsendable
from qmp_client.lab.fitting import forms
from qmp_client.lab.letters import Agent
from qmp_client.lab.store import Letter, Store
from qmp_client.lab.wire import Delivered

LOG = logging.getLogger("tdx-cpuid.agent")
BATCH = 16
"""Messages that wait for the broker's acknowledgement at a time."""


class Post:
    """Sends the outbox in order, on one connection after the other."""

    def __init__(self, agent: Agent, store: Store) -> None:
        self._agent = agent
        self._store = store
        self._spoken = asyncio.Event()
        self._form: dict[int, int] = {}
        """Messages that were too large for the broker, by number, and which form of them is next."""
        self.delivered = 0
        """How many messages the broker took from this process."""

    def spoken(self) -> None:
        """Say that there may be something new in the outbox."""
        self._spoken.set()

    async def send(self, connection: Connection) -> None:
        """Send what is in the outbox, and note on the broker how far it is. Raises MqttError when that breaks."""
        lab, _, host, _ = self._agent
        noted = -1
        refused: set[int] = set()
        while True:
            self._spoken.clear()
            letters = [letter for letter in self._store.outbox(BATCH + len(refused)) if letter.number not in refused]
            taken = await asyncio.gather(*(self._deliver(connection, letter) for letter in letters))
            refused |= {letter.number for letter, done in zip(letters, taken, strict=True) if not done}
            through = self._store.taken([letter.number for letter, done in zip(letters, taken, strict=True) if done])
            if letters:
                continue
            if through != noted:
                note = Delivered(through=through, store=self._store.identity)
                await connection.say(topics.delivered(lab, host), note, retain=True)
                noted = through
            await self._spoken.wait()

    async def _deliver(self, connection: Connection, letter: Letter) -> bool:
        """Whether it is done with; what the broker's rules refuse is tried again on the next connection."""
        first = self._form.get(letter.number, 0)
        reason = "the broker takes no message of its size"
        try:
            for number, form in islice(enumerate(forms(letter, connection.largest)), first, None):
                try:
                    await connection.deliver(form)
                except TooLarge as error:
                    self._form[letter.number] = number + 1
                    reason = f"{error}"
                    LOG.warning("too large for the broker: %s", error)
                    continue
                self._form.pop(letter.number, None)
                self.delivered += 1
                if number:
                    LOG.warning("sent %s", f"{letter.topic} compressed" if number == 1 else f"a part of {letter.topic}")
                return True
        except (Unsendable, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = f"{error}"
        except NotTaken as error:
            LOG.error("the broker refuses what this agent says (its access rules?): %s", error)
            return False
        LOG.error("set aside, and not sent: %s", reason)
        self._store.set_aside(letter, reason)
        self._form.pop(letter.number, None)
        return True
