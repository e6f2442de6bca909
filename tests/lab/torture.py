"""Kills the agent and the broker again and again while jobs are submitted, and says whether anything was lost."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
from aiomqtt import MqttError

from qmp_client.lab import topics
from qmp_client.lab.wire import Job, Outcome, Result, encode
from tests.lab.processes import LAB, POOL, AgentProcess, Broker, listening
from tests.waiting import PATIENCE, eventually

MARK = "TDX_CPUID_TORTURE"
"""In the environment of everything that is started, to find what is left."""


class Torture:
    """One agent, one broker, some jobs, and a subscriber that connects again when the broker is back."""

    def __init__(self, folder: Path, kills: int, jobs: int, seed: int) -> None:
        self._chance = random.Random(seed)
        self._kills = kills
        self._jobs = [Job(id=f"job-{number}") for number in range(jobs)]
        os.environ[MARK] = str(folder)
        self._broker = Broker(folder)
        self._agent = AgentProcess(
            self._broker, folder, "alpha", drift={"cpu": []}, limits={"jobs-at-once": 2, "seconds": PATIENCE}
        )
        self.heard: dict[str, set[bytes]] = {}
        """Every payload that the subscriber got for each job."""

    async def run(self) -> list[str]:
        """Return what is wrong, in sentences."""
        self._broker.start()
        self._agent.start()
        subscriber = asyncio.create_task(self._subscribe())
        submitter = asyncio.create_task(self._submit())
        try:
            for number in range(self._kills):
                await asyncio.sleep(self._chance.uniform(0.02, 1.2))
                await self._kill_one()
                print(f"\r{number + 1} kills, {len(self.heard)} results heard", end="", file=sys.stderr, flush=True)
            with suppress(AssertionError):  # said below
                await eventually(lambda: len(self.heard) >= len(self._jobs), "all results are there")
        finally:
            for task in (subscriber, submitter):
                task.cancel()
            await asyncio.gather(subscriber, submitter, return_exceptions=True)
            self._agent.kill()
            self._broker.kill()
            print(file=sys.stderr)
        with suppress(AssertionError):  # said below
            await eventually(lambda: not left_behind(), "those that end with the agent, not by our hand, have ended")
        return self._judge()

    async def _kill_one(self) -> None:
        who = self._chance.choice(("agent", "agent", "broker", "both"))
        pause = self._chance.choice((0, 0, 0.3))
        if who != "broker":
            await asyncio.to_thread(self._agent.kill)
        if who != "agent":
            await asyncio.to_thread(self._broker.kill)
        await asyncio.sleep(pause)
        if who != "agent":
            await asyncio.to_thread(self._broker.start)
        if who != "broker":
            self._agent.start()

    async def _submit(self) -> None:
        """Send each job, now and then twice, until the agent has stored it."""
        while missing := [job for job in self._jobs if job.id not in self._column("SELECT id FROM jobs")]:
            with suppress(MqttError):
                async with listening(self._broker.address, topics.reply(LAB, "nobody")) as listener:
                    for job in self._chance.sample(missing, min(3, len(missing))):
                        for _ in range(self._chance.choice((1, 1, 2))):
                            await listener.submit(encode(job), topics.jobs(LAB, POOL))
            await asyncio.sleep(0.7)

    async def _subscribe(self) -> None:
        while True:
            with suppress(MqttError):
                async with listening(self._broker.address, topics.result(LAB, topics.EVERY)) as listener:
                    while not listener.connection.broken:
                        await asyncio.sleep(0.05)
                        for message in listener.heard:
                            self.heard.setdefault(message.topic.value.rpartition("/")[2], set()).add(message.payload)
                        listener.heard.clear()
            await asyncio.sleep(0.05)

    def _column(self, query: str) -> set[str]:
        with suppress(sqlite3.Error), sqlite3.connect(f"file:{self._agent.state}?mode=ro", uri=True) as db:
            return {row[0] for row in db.execute(query)}
        return set()

    def _judge(self) -> list[str]:
        wrong = []
        with sqlite3.connect(self._agent.state) as db:
            accepted = [row[0] for row in db.execute("SELECT id FROM jobs")]
            stored = list(db.execute("SELECT job, payload FROM results"))
            attempts = db.execute("SELECT SUM(attempts) FROM jobs").fetchone()[0]
        measured = sum(msgspec.json.decode(payload, type=Result).outcome is Outcome.MEASURED for _, payload in stored)
        if sorted(accepted) != sorted(job.id for job in self._jobs):
            wrong.append(f"accepted: {sorted(accepted)}")
        if sorted(job for job, _ in stored) != sorted(accepted):
            wrong.append(f"accepted and stored differ: {sorted(accepted)}, {sorted(job for job, _ in stored)}")
        for job, payload in stored:
            if self.heard.get(job) != {payload}:
                count = len(self.heard.get(job, ()))
                wrong.append(f"{job}: the subscriber heard {count} different results, not exactly the stored one")
        wrong += [f"left behind: {name}" for name in left_behind()]
        print(f"{len(stored)} results stored, {measured} measured, in {attempts} attempts", file=sys.stderr)
        return wrong


def left_behind() -> list[str]:
    """Processes that were started here and still run."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if int(environ.parent.name) != os.getpid() and mark in environ.read_bytes().split(b"\0"):
                found.append((environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def main() -> int:
    """``torture.py [KILLS [SEED]]``: 0 when nothing was lost."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"seed {seed}, {kills} kills", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        wrong = asyncio.run(Torture(Path(folder), kills, max(10, kills // 2), seed).run())
    print("\n".join(wrong) or f"nothing lost in {kills} kills (seed {seed})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
