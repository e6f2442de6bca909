"""The agent: keeps a connection to the broker, takes jobs, and says what became of them until the broker has it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Literal, TypeVar

import aiomqtt
import msgspec
from aiomqtt import MqttError

from qmp_client.lab import topics
from qmp_client.lab.address import Address
from qmp_client.lab.admission import Refusal, admit, check_reply
from qmp_client.lab.broker import PATIENCE, Connection, reply_to
from qmp_client.lab.letters import Agent
from qmp_client.lab.observer import Observer
from qmp_client.lab.post import Post
from qmp_client.lab.printable import printable
from qmp_client.lab.runner import Runner, Work, ask_worker
from qmp_client.lab.service_manager import ALIVE, READY, notify, watchdog
from qmp_client.lab.store import Accepted, Arrival, Store
from qmp_client.lab.wire import Delivered, Drain, Message, State, Status

LOG = logging.getLogger("tdx-cpuid.agent")

SESSION = 3600
"""Seconds for which the broker keeps the jobs of an agent that is away."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
"""Seconds between two attempts to connect."""
FAREWELL = 2.0
"""Seconds for saying good-bye to a broker that may be gone."""
DRAINED = "drained"
STATUS_EVERY = 0.25

M = TypeVar("M", bound=Message)


class Service:
    """One agent. It works without a broker too: accepted jobs are run and their results wait in the store."""

    def __init__(
        self,
        agent: Agent,
        store: Store,
        broker: Address,
        observer: Observer,
        work: Work = ask_worker,
        ending: Callable[[], None] = lambda: None,
    ) -> None:
        """``ending`` is called when there is a reason to end, perhaps more than once."""
        self._agent = agent
        self._store = store
        self._broker = broker
        self._post = Post(agent, store)
        self._draining = asyncio.Event()
        """Set when the wish to drain may have changed."""
        self._stopping = asyncio.Event()
        self._rival = False
        """Whether somebody else seems to be an agent of this name."""
        self._runner = Runner(agent, store, self._post.spoken, work, observer)
        self._observer = observer
        self._ending = ending

    def stop(self) -> None:
        """End in order: jobs that run are stopped and stay in the store."""
        self._ending()
        self._stopping.set()

    async def run(self) -> None:
        """Work until ``stop`` is called. Raises, in a group, what nobody expected: the agent does not go on then."""
        async with asyncio.TaskGroup() as group:
            work = [
                group.create_task(self._watched(self._runner.run())),
                group.create_task(self._watched(self._runner.measure(lambda: bool(self._store.setting(DRAINED))))),
                group.create_task(self._watched(self._stay_connected())),
                group.create_task(self._live()),
            ]
            await self._stopping.wait()
            for task in work:
                task.cancel()

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        """Do a part of the work; what nobody expects ends the agent, and is said at once, whatever else hangs then."""
        try:
            await work
        except (MqttError, TimeoutError, BaseExceptionGroup):  # whatever is in a group has come by here before
            raise
        except Exception as error:
            LOG.critical("ends: %s: %s", type(error).__name__, error)
            self._ending()
            raise

    async def _live(self) -> None:
        """Tell the service manager that the agent is alive, as often as it wants to hear that."""
        notify(READY)
        if seconds := watchdog():
            while True:
                notify(ALIVE)
                await asyncio.sleep(seconds / 3)

    async def _stay_connected(self) -> None:
        pause = FIRST_PAUSE
        while True:
            before, began = self._post.delivered, math.inf
            try:
                async with self._connection() as connection:
                    LOG.info("connected to %s:%d", self._broker.host, self._broker.port)
                    began = time.monotonic()
                    self._observer.connected(True)
                    await self._converse(connection)
            except* (MqttError, TimeoutError) as group:
                for error in _each(group):
                    LOG.warning("broker %s:%d: %s", self._broker.host, self._broker.port, error)
            if self._post.delivered > before or time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE  # a connection alone is no reason: it may break at the same message each time
            if self._rival:
                pause = LONGEST_PAUSE  # or the two would throw each other out several times a second
            self._observer.connected(False)
            await rest(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _connection(self) -> Connection:
        lab, _, host, _ = self._agent
        gone = Status(host=host, pool=self._agent.pool, state="offline")
        return Connection(self._broker, f"tdx-cpuid-{lab}-{host}", SESSION, (topics.status(lab, host), gone))

    async def _converse(self, connection: Connection) -> None:
        """Everything that is done on one connection, until it breaks (MqttError) or the agent is stopped."""
        lab, pool, host, _ = self._agent
        remembered: asyncio.Future[Delivered] = asyncio.get_running_loop().create_future()
        probe = secrets.token_hex(8)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watched(self._listen(connection, probe, remembered)))
                await self._introduce(connection, probe, remembered)
                group.create_task(self._watched(self._take_jobs(connection)))
                group.create_task(self._watched(self._post.send(connection)))
                group.create_task(self._watched(self._show_status(connection)))
        except BaseException:
            # Whatever ends this, stop or failure: the last will is only for a connection that nobody closes.
            if not connection.broken:
                gone = Status(host=host, pool=pool, state="offline")
                with suppress(MqttError, TimeoutError):
                    async with asyncio.timeout(FAREWELL):
                        await asyncio.gather(  # both are sent, even to a broker that answers only later
                            connection.unsubscribe(topics.shared_jobs(lab, pool)),  # its jobs go to others at once
                            connection.say(topics.status(lab, host), gone, retain=True),
                        )
            raise

    async def _introduce(self, connection: Connection, probe: str, remembered: asyncio.Future[Delivered]) -> None:
        """Say who is there, and find out what the broker remembers."""
        lab, _, host, _ = self._agent
        delivered = topics.delivered(lab, host)
        await connection.listen(delivered, 0)
        await connection.say(delivered, Delivered(through=0, probe=probe))
        async with asyncio.timeout(PATIENCE):
            note = await remembered
        await connection.unsubscribe(delivered)
        self._rival = note.store not in (0, self._store.identity)
        if self._rival:  # what it notes says nothing of this agent's messages
            LOG.error("an agent with another state file was here as host %s: each agent needs its own --host", host)
        elif again := self._store.send_again(note.through):
            LOG.warning("the broker has forgotten %d messages; they are sent again", again)
        await connection.say(topics.capabilities(lab, host), self._agent.capabilities(), retain=True)
        await connection.listen(topics.drain(lab, host))
        await connection.listen(topics.host_jobs(lab, host))

    async def _take_jobs(self, connection: Connection) -> None:
        """Be subscribed to the pool's jobs, except while this host is drained."""
        shared = topics.shared_jobs(self._agent.lab, self._agent.pool)
        while True:
            self._draining.clear()
            if self._store.setting(DRAINED):
                await connection.unsubscribe(shared)
            else:
                await connection.listen(shared)
            await self._draining.wait()

    async def _show_status(self, connection: Connection) -> None:
        """Keep the retained status true."""
        lab, pool, host, _ = self._agent
        shown = None
        while True:
            running = len(self._runner.running)
            unfinished = self._store.count_unfinished()
            state: Literal["online", "draining", "drained"] = "online"
            if self._store.setting(DRAINED):
                state = "draining" if unfinished else "drained"
            status = Status(host=host, pool=pool, state=state, running=running, waiting=unfinished - running)
            if status != shown:
                await connection.say(topics.status(lab, host), status, retain=True)
                shown = status
            await asyncio.sleep(STATUS_EVERY)

    async def _listen(self, connection: Connection, probe: str, remembered: asyncio.Future[Delivered]) -> None:
        """Take what the broker sends; acknowledge it when it is dealt with."""
        lab, _, host, _ = self._agent
        noted = Delivered(through=0)
        async for message in connection.messages:
            topic = message.topic.value
            if topic == topics.delivered(lab, host):
                note = _read(message.payload, Delivered)
                if note is not None and message.retain:
                    noted = note
                elif note is not None and note.probe == probe and not remembered.done():
                    remembered.set_result(noted)
            elif topic == topics.drain(lab, host):
                self._drain(message.payload)
            else:
                self._receive(message)
            connection.acknowledge(message)

    def _drain(self, payload: bytes) -> None:
        wish = _read(payload, Drain)
        if wish is not None and wish.drain != bool(self._store.setting(DRAINED)):
            LOG.info("drained: no more jobs of the pool" if wish.drain else "takes jobs of the pool again")
            self._store.set(DRAINED, int(wish.drain))
            self._draining.set()

    def _receive(self, message: aiomqtt.Message) -> None:
        """Store a job, or why it is none. When this returns it is on the disk."""
        agent, store = self._agent, self._store
        response_topic, correlation = reply_to(message)
        name = ""
        try:
            check_reply(agent.lab, response_topic, correlation, name)
        except Refusal as refusal:
            self._reject(message.payload, name, f"{refusal}", None, None)
            return
        try:
            job = admit(message.payload, agent.config)
            name = job.id
            if not store.knows(job.id) and store.count_unfinished() >= agent.config.limits.jobs_waiting:
                raise Refusal(f"{agent.config.limits.jobs_waiting} jobs wait here, which is this host's limit", job.id)
        except Refusal as refusal:
            self._reject(message.payload, refusal.job, f"{refusal}", response_topic, correlation)
            return
        accepted = Accepted(job, response_topic, correlation, 0)
        arrival = store.accept(job, response_topic, correlation, agent.progress(accepted, State.ACCEPTED))
        if arrival is Arrival.NEW:
            LOG.info("accepted %s", job.id)
            self._runner.arrived()
        elif arrival is Arrival.OTHER:
            self._reject(message.payload, name, f"another job has the id {name}", response_topic, correlation)
        elif (stored := store.result(job.id)) is not None:
            store.post([agent.stored_result(job.id, stored, response_topic, correlation)])
        self._post.spoken()

    def _reject(
        self, payload: bytes, name: str, reason: str, response_topic: str | None, correlation: bytes | None
    ) -> None:
        LOG.warning("rejected %s: %s", name or "a message", reason)
        letters = self._agent.rejection(payload, name, reason, response_topic, correlation)
        self._store.reject(name, hashlib.sha256(payload).hexdigest(), reason, letters)
        self._post.spoken()


async def rest(pause: float) -> None:
    """Wait for about so many seconds: agents shall not come back all at once."""
    await asyncio.sleep(pause * random.uniform(0.5, 1.0))


def _read(payload: bytes, kind: type[M]) -> M | None:
    """The message, or None for what is none: whoever may write there may write nonsense."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        LOG.warning("ignored: %s", printable(f"{error}"))
        return None


def _each(group: BaseExceptionGroup[MqttError | TimeoutError]) -> Iterator[str]:
    """What went wrong, each thing once."""
    said = set()
    for error in group.exceptions:
        cause = error.__cause__ if isinstance(error.__cause__, MqttError) else error  # the broker's own word
        texts = _each(error) if isinstance(error, BaseExceptionGroup) else [str(cause) or type(error).__name__]
        for text in texts:
            if text not in said:
                said.add(text)
                yield text
