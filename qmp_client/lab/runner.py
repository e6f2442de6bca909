"""Runs the accepted jobs, each in a process of its own, and measures by itself what is watched for drift."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from qmp_client.boot.model import BootWish
from qmp_client.lab.admission import admit
from qmp_client.lab.letters import Agent
from qmp_client.lab.observer import Observer
from qmp_client.lab.parts import fingerprint
from qmp_client.lab.printable import printable
from qmp_client.lab.store import Accepted, Letter, Store
from qmp_client.lab.wire import Job, Outcome, Result, State, encode
from qmp_client.lab.worker import Answer, Order

GRACE = 5.0
"""Seconds in which an interrupted worker stops its QEMU."""
SAID = 2000
"""Characters of what a failed worker said that its result quotes."""


Work = Callable[[Order], Awaitable[Answer]]
"""Does a job; raises nothing but what ends the agent."""


class Runner:
    """Takes jobs from the store in the order of their acceptance and stores what became of them."""

    def __init__(self, agent: Agent, store: Store, spoken: Callable[[], None], work: Work, observer: Observer) -> None:
        """``spoken`` is called when there is something new in the outbox; ``work`` does one job."""
        self._agent = agent
        self._store = store
        self._spoken = spoken
        self._do = work
        self._observer = observer
        self._arrived = asyncio.Event()
        self.running: set[str] = set()
        """The ids of the jobs that run now."""

    def arrived(self) -> None:
        """Say that there is a new job in the store."""
        self._arrived.set()

    async def run(self) -> None:
        """Run jobs until cancelled; what runs then is begun again by the next agent that has this store."""
        slots = self._agent.config.limits.jobs_at_once
        async with asyncio.TaskGroup() as group:
            while True:
                self._arrived.clear()
                for accepted in self._store.unfinished(slots + len(self.running)):
                    if len(self.running) < slots and accepted.job.id not in self.running:
                        self.running.add(accepted.job.id)
                        self._observer.began(len(self.running))
                        group.create_task(self._run(accepted))
                await self._arrived.wait()

    async def measure(self, idle: Callable[[], bool]) -> None:
        """Measure what is watched, unless ``idle`` says that this host shall rest.

        That is: at once, on schedule, and when a part of the host (QEMU, firmware, TDX module, microcode) is another.
        """
        drifting = self._agent.config.drift
        too_late: frozenset[str] = frozenset()  # measurements that began before a part was replaced
        while True:
            consists_of = fingerprint(self._agent.config)
            waiting = {
                accepted.job.cpu
                for accepted in self._store.unfinished()
                if self._is_measurement(accepted.job) and accepted.job.id not in too_late
            }
            for cpu in drifting.cpu:
                if cpu not in waiting and not idle():
                    job = self._measurement(cpu)
                    accepted = Accepted(job, None, None, 0)
                    self._store.accept(job, None, None, self._agent.progress(accepted, State.ACCEPTED))
            self.arrived()
            self._spoken()
            due = time.monotonic() + drifting.every_minutes * 60
            while (left := due - time.monotonic()) > 0 and fingerprint(self._agent.config) == consists_of:  # noqa: ASYNC110
                await asyncio.sleep(min(left, drifting.look_every_seconds))
            too_late = frozenset() if left <= 0 else frozenset(self.running)

    async def _run(self, accepted: Accepted) -> None:
        job, agent, store = accepted.job, self._agent, self._store
        try:
            if accepted.unreadable:
                reason = f"this version cannot read the stored job, whose bytes are kept: {accepted.unreadable}"
                result = agent.ended(job.id, Outcome.FAILED, 0, printable(reason))
            elif accepted.attempts >= agent.config.limits.attempts:
                reason = f"the agent ended {accepted.attempts} times while this job ran; it is not begun again"
                result = agent.ended(job.id, Outcome.FAILED, 0, reason)
            else:
                store.begin(job.id, agent.progress(accepted, State.RUNNING))
                self._spoken()
                result = await self._work(job)
            letters, alarm, baseline = agent.result(accepted, result), list[Letter](), None
            if result.outcome is Outcome.MEASURED and self._is_measurement(job):
                baseline = (agent.pool, job.cpu)
                alarm = agent.drifted(job, store.measured(*baseline), result)
            if store.finish(result, [*letters, *alarm], baseline):
                self._observer.ended(result, drifted=bool(alarm))
        finally:
            self.running.discard(job.id)
            self._observer.began(len(self.running))
        self._spoken()
        self.arrived()

    async def _work(self, job: Job) -> Result:
        agent, limits = self._agent, self._agent.config.limits
        try:
            allowed = admit(encode(job), agent.config)  # the configuration may be another than when it was accepted
        except ValueError as error:
            return agent.ended(job.id, Outcome.FAILED, 0, f"no longer accepted here: {error}")
        guest = self._guest(allowed)
        order = Order(
            allowed,
            agent.config.qemu[allowed.qemu],
            agent.config.firmware,
            tuple(word for name in allowed.options for word in agent.config.options[name]),
            agent.config.simulated,
            limits.memory_mib,
            limits.seconds,
            os.getpid(),
            guest,
        )
        allotted = limits.seconds + (guest.seconds + guest.shutdown_seconds if guest else 0)
        started = time.monotonic()
        try:
            async with asyncio.timeout(allotted):
                answer = await self._do(order)
        except TimeoutError:
            answer = Answer(None, None, f"not done after {allotted:g} s, which is this host's limit")
        seconds = time.monotonic() - started
        result = agent.ended(job.id, Outcome.FAILED if answer.error else Outcome.MEASURED, seconds, answer.error)
        return msgspec.structs.replace(result, report=answer.report, versions=answer.versions, boot=answer.boot)

    def _guest(self, job: Job) -> BootWish | None:
        """The guest that an admitted job boots, with its names resolved."""
        limits = self._agent.config.boot
        if job.boot is None or limits is None:
            return None
        return BootWish(
            disk=limits.disks[job.boot.disk],
            pattern=job.boot.pattern,
            guest_agent=job.boot.guest_agent,
            seconds=job.boot.seconds or limits.seconds,
            shutdown_seconds=limits.shutdown_seconds,
            memory_mib=limits.memory_mib,
            console_kib=limits.console_kib,
        )

    def _measurement(self, cpu: str) -> Job:
        """The job that shows what guests with this ``-cpu`` see: everything else as this host has it."""
        name = f"measure-{self._agent.host[:32]}-{secrets.token_hex(6)}"
        return admit(encode(Job(id=name, cpu=cpu)), self._agent.config)

    def _is_measurement(self, job: Job) -> bool:
        """Whether a job is one that all measurements of its ``-cpu`` can be compared with."""
        try:
            same = admit(encode(Job(id=job.id, cpu=job.cpu)), self._agent.config)
        except ValueError:
            return False
        return same == job


async def ask_worker(order: Order) -> Answer:
    """Have a worker do the job. However this ends, the worker is gone."""
    try:
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "qmp_client.lab.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:  # the host is short of processes, memory or descriptors
        return Answer(None, None, f"this host could not start a process for the job: {error.strerror}")
    try:
        out, complaints = await worker.communicate(msgspec.json.encode(order))
    finally:
        await asyncio.shield(_end(worker))
    if worker.returncode == 0:
        return msgspec.json.decode(out, type=Answer)
    said = complaints.decode(errors="replace").strip()[-SAID:]
    return Answer(None, None, f"the process that ran this job ended with {worker.returncode}: {said}")


async def _end(worker: asyncio.subprocess.Process) -> None:
    for insistence in (signal.SIGINT, signal.SIGKILL):
        if worker.returncode is None:
            with suppress(ProcessLookupError):
                worker.send_signal(insistence)
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await worker.wait()
