"""Sends jobs to a lab and waits for what becomes of them, through outages of the broker."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

from aiomqtt import MqttError

from qmp_client.lab import topics
from qmp_client.lab.address import Address
from qmp_client.lab.broker import IN_FLIGHT, Connection, NotTaken, refused
from qmp_client.lab.hearing import read
from qmp_client.lab.ledger import Ledger
from qmp_client.lab.store import Letter
from qmp_client.lab.wire import Job, encode, schema_of

NOBODY = 0x10
"""The reason code by which an MQTT 5 broker says that no subscriber, present or away, gets a message."""
EXPIRY = 24 * 3600
"""Seconds for which the broker keeps a job for a host that is away."""
AGAIN = 2.0
"""Seconds between two attempts to reach a broker, or a pool in which nobody is."""


class Submission:
    """Jobs on their way to one pool or host, and back."""

    def __init__(self, broker: Address, lab: str, topic: str, ledger: Ledger, tell: Callable[[str], None]) -> None:
        """``tell`` is given sentences for the user."""
        self._broker = broker
        self._lab = lab
        self._topic = topic
        self._ledger = ledger
        self._tell = tell
        self._reply = topics.reply(lab, f"submit-{secrets.token_hex(8)}")

    async def send(self) -> list[Job]:
        """Send each job once, and return those that nobody takes.

        Raises MissingError when the broker cannot be reached, UsageError when it does not let us.
        """
        try:
            async with Connection(self._broker) as connection:
                return await self._send(connection, self._ledger.unheard)
        except MqttError as error:
            raise refused(self._broker, error) from error

    async def run(self, changed: Callable[[], None]) -> None:
        """Send the jobs, and wait until there is a result or a rejection of each; ``changed`` is called for news.

        Raises what ``send`` raises; but a broker that was reached once is waited for.
        """
        reached = False
        while self._ledger.open:
            broken: MqttError | None = None
            try:
                async with Connection(self._broker) as connection:
                    if reached:
                        self._tell("the broker is back")
                    late, reached = reached or not self._ledger.jobs, True
                    await self._converse(connection, changed, late=late)
            except* MqttError as group:
                broken = _first(group)
            if broken is not None:
                if not reached or isinstance(broken, NotTaken):
                    raise refused(self._broker, broken)
                self._tell(f"the broker is gone ({broken}); trying again")
                await asyncio.sleep(AGAIN)

    async def _converse(self, connection: Connection, changed: Callable[[], None], *, late: bool) -> None:
        """Everything on one connection. ``late``: results may have come while nobody was listening."""
        await connection.listen(self._reply)
        if late:
            for job in self._ledger.open:
                await connection.listen(topics.result(self._lab, job))
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(self._keep_sending(connection))
            async for message in connection.messages:
                said = read(message.payload)
                connection.acknowledge(message)
                if said is not None and self._ledger.take(said):
                    changed()
                if not self._ledger.open:
                    break
            sender.cancel()

    async def _keep_sending(self, connection: Connection) -> None:
        """Send what no host has, until the broker has somebody for all of it."""
        jobs = await self._send(connection, self._ledger.unheard)
        if jobs:
            self._tell(f"{nobody(self._topic)}; waiting for somebody")
        while jobs:
            await asyncio.sleep(AGAIN)
            jobs = await self._send(connection, jobs)

    async def _send(self, connection: Connection, jobs: Sequence[Job]) -> list[Job]:
        """Publish jobs, and return those that nobody takes."""
        left: list[Job] = []
        for start in range(0, len(jobs), IN_FLIGHT):
            some = jobs[start : start + IN_FLIGHT]
            answers = await asyncio.gather(*(connection.deliver(self._letter(job)) for job in some))
            left += [job for job, answer in zip(some, answers, strict=True) if answer.value == NOBODY]
        return left

    def _letter(self, job: Job) -> Letter:
        return Letter(
            self._topic,
            encode(job),
            schema_of(Job),
            EXPIRY,
            correlation=job.id.encode(),
            response_topic=self._reply,
        )


def nobody(topic: str) -> str:
    """That a topic has no subscriber, in words."""
    *_, what, name = topic.removesuffix("/jobs").split("/")
    return f"no agent has ever connected as host {name}" if what == "hosts" else f"no agent takes jobs of pool {name}"


def _first(group: BaseExceptionGroup[MqttError]) -> MqttError:
    """One of the errors; the broker's own word, where there is one."""
    leaves: list[MqttError] = []
    for error in group.exceptions:
        leaves.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in leaves if isinstance(error, NotTaken)), leaves[0])
