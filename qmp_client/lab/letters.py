"""What an agent has to say, as messages ready for the outbox."""

from __future__ import annotations

import hashlib
import time
from typing import NamedTuple

from qmp_client.lab import drift, topics
from qmp_client.lab.config import Config
from qmp_client.lab.store import Accepted, Letter
from qmp_client.lab.wire import (
    Capabilities,
    Drift,
    Job,
    Message,
    Outcome,
    Progress,
    Rejection,
    Result,
    State,
    encode,
    schema_of,
)

HOUR = 3600


class Agent(NamedTuple):
    """Who speaks: an agent's names and its configuration."""

    lab: str
    pool: str
    host: str
    config: Config

    @property
    def keep(self) -> int:
        """For how many seconds the broker keeps results."""
        return round(self.config.result_hours * HOUR)

    def progress(self, accepted: Accepted, state: State, ended: Result | None = None) -> list[Letter]:
        """A step of a job, for everybody and for whoever sent it."""
        said = Progress(
            job=accepted.job.id,
            host=self.host,
            pool=self.pool,
            cpu=accepted.job.cpu,
            state=state,
            outcome=ended.outcome if ended else None,
            reason=ended.reason if ended else "",
        )
        letters = [_letter(topics.progress(self.lab, accepted.job.id), said, HOUR)]
        return letters + self._reply(accepted.response_topic, accepted.correlation, said, HOUR)

    def result(self, accepted: Accepted, result: Result) -> list[Letter]:
        """What became of a job: kept by the broker for those who come late, and for whoever sent it."""
        letter = _letter(topics.result(self.lab, result.job), result, self.keep)._replace(retain=True)
        reply = self._reply(accepted.response_topic, accepted.correlation, result, self.keep)
        return [letter, *self.progress(accepted, State.DONE, result), *reply]

    def stored_result(self, job: str, payload: bytes, response_topic: str | None, correlation: bytes | None) -> Letter:
        """A stored result again, for somebody who sent the job again."""
        topic = response_topic or topics.result(self.lab, job)
        return Letter(topic, payload, schema_of(Result), self.keep, response_topic is None, correlation)

    def rejection(
        self, payload: bytes, job: str, reason: str, response_topic: str | None, correlation: bytes | None
    ) -> list[Letter]:
        """Why a payload is no job for this host."""
        digest = hashlib.sha256(payload).hexdigest()
        said = Rejection(host=self.host, job=job, digest=digest, reason=reason)
        letters = [_letter(topics.rejected(self.lab, self.host), said, self.keep)]
        return letters + self._reply(response_topic, correlation, said, self.keep)

    def drifted(self, job: Job, before: Result | None, now: Result) -> list[Letter]:
        """The alarm, if guests see another CPUID than before."""
        changes = drift.compare(before, now)
        if not changes or before is None or before.versions is None or now.versions is None:
            return []
        what_moved = drift.moved(before.versions, now.versions, simulated=now.kvm == "simulated")
        said = Drift(
            host=self.host,
            pool=self.pool,
            cpu=job.cpu,
            kvm=now.kvm,
            job=job.id,
            at=time.time(),
            likely=drift.likely(what_moved),
            moved=what_moved,
            before=before.versions,
            now=now.versions,
            changes=changes,
        )
        return [_letter(topics.drift(self.lab), said, self.keep)]

    def ended(self, job: str, outcome: Outcome, seconds: float, reason: str = "") -> Result:
        """A result without a report."""
        return Result(
            job=job,
            host=self.host,
            pool=self.pool,
            outcome=outcome,
            seconds=round(seconds, 3),
            at=time.time(),
            reason=reason,
            kvm="simulated" if self.config.simulated else "hardware",
        )

    def capabilities(self) -> Capabilities:
        """What a job may choose here."""
        config = self.config
        return Capabilities(
            host=self.host,
            pool=self.pool,
            kvm="simulated" if config.simulated else "hardware",
            qemu=tuple(config.qemu),
            machines=config.machines,
            cpu_models=config.cpu_models,
            modules=config.modules,
            platforms=config.platforms,
            options=tuple(config.options),
            disks=tuple(config.boot.disks) if config.boot else (),
            jobs_at_once=config.limits.jobs_at_once,
            max_vcpus=config.limits.max_vcpus,
        )

    @staticmethod
    def _reply(topic: str | None, correlation: bytes | None, said: Message, expiry: int) -> list[Letter]:
        return [] if topic is None else [_letter(topic, said, expiry)._replace(correlation=correlation)]


def _letter(topic: str, message: Message, expiry: int) -> Letter:
    return Letter(topic, encode(message), schema_of(type(message)), expiry)
