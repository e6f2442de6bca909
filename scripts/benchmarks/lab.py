"""Many agents on one Mosquitto: jobs a second, how long one takes from submit to result, and memory.

The agents are the real ones (store, outbox, shared subscription, retained results), each a process of its own, forked
from one that has everything loaded. Only the work is another: ``predict`` in the agent's process, or none at all, which
shows what the messages alone cost. Latency is measured twice: with one job at a time, and with as many jobs under way
as there are agents.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
from rich.console import Console
from rich.table import Table

from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM
from plugin.processes.child import die_with_parent, fork
from qmp_client.lab import topics
from qmp_client.lab.address import Address
from qmp_client.lab.broker import Connection
from qmp_client.lab.config import parse
from qmp_client.lab.letters import Agent
from qmp_client.lab.observer import Observer
from qmp_client.lab.runner import Work
from qmp_client.lab.service import Service
from qmp_client.lab.store import Letter, Store
from qmp_client.lab.wire import Job, Result, Status, Versions, encode, schema_of
from qmp_client.lab.worker import Answer, Order
from qmp_client.names import a_host
from qmp_client.negotiation.understand import understand
from qmp_client.predict.predict import predict

LAB, POOL = "bench", "all"
ALONE = 40
"""Jobs that are sent one after the other."""
VERSIONS = Versions(module=DEFAULT_MODULE, microcode="", kernel="", qemu="", firmware="", platform=DEFAULT_PLATFORM)
CONFIG = parse(
    {
        "qemu": {"none": "/nonexistent"},
        "firmware": "/nonexistent",
        "modules": [DEFAULT_MODULE],
        "platforms": [DEFAULT_PLATFORM],
        "drift": {"cpu": []},
    }
)


class Figures(NamedTuple):
    """What one kind of work gave."""

    work: str
    rate: float
    """Jobs a second."""
    alone: list[float]
    """Seconds from submit to result, with nothing else going on."""
    crowded: list[float]
    """The same, with a job under way for each agent."""
    result_bytes: float
    broker_mib: float
    agent_mib: float
    """What one more agent takes: memory that it shares with no other process."""


async def predicted(order: Order) -> Answer:
    """The job's report, computed in the agent's own process."""
    host = a_host(order.job.module, order.job.platform)
    return Answer(
        predict(order.job.cpu, str(order.job.vcpus), understand(order.job.choose, None, None), host), VERSIONS
    )


async def nothing(_: Order) -> Answer:
    """No work: the messages alone."""
    return Answer(None, None, "no work was wanted")


WORKS: dict[str, Work] = {"predict": predicted, "none": nothing}


@contextmanager
def mosquitto(folder: Path) -> Iterator[tuple[int, int]]:
    """A broker; its port and process id."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise SystemExit("bench: there is no mosquitto here; apt-get install mosquitto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\n")
    with (folder / "mosquitto.log").open("w") as log:
        process = subprocess.Popen([program, "-c", config], stderr=log)
    try:
        while process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def _agent(host: str, folder: Path, broker: Address, work: Work, parent: int) -> int:
    die_with_parent(parent)
    store = Store(folder / f"{host}.sqlite")
    asyncio.run(Service(Agent(LAB, POOL, host, CONFIG), store, broker, Observer(), work).run())
    return 0


@contextmanager
def agents(count: int, folder: Path, broker: Address, work: Work) -> Iterator[list[int]]:
    """That many agents, each in a process of its own."""
    gc.freeze()  # what is loaded stays shared
    pids = []
    for number in range(count):
        pids.append(fork(partial(_agent, f"host-{number}", folder, broker, work)))
    try:
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


class Client:
    """Sends jobs and times their results."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reply = topics.reply(LAB, "bench")
        self._sent: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[float]] = {}
        self.online: set[str] = set()
        self.sizes: list[int] = []

    async def listen(self) -> None:
        """Take results and statuses as they come."""
        async for message in self._connection.messages:
            self._connection.acknowledge(message)
            topic = message.topic.value
            if topic.endswith("/status"):
                said = msgspec.json.decode(message.payload, type=Status)
                if said.state == "online":
                    self.online.add(said.host)
            elif b'"tdx-cpuid/lab/result/' in message.payload[:40]:
                job = msgspec.json.decode(message.payload, type=Result).job
                self.sizes.append(len(message.payload))
                if (waiting := self._waiting.pop(job, None)) is not None:
                    waiting.set_result(time.monotonic() - self._sent.pop(job))

    async def begin(self, hosts: int) -> None:
        """Subscribe, and wait until all hosts are there."""
        await self._connection.listen(self._reply)
        await self._connection.listen(topics.status(LAB, topics.EVERY))
        while len(self.online) < hosts:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def job(self) -> float:
        """One job; the seconds until its result is here."""
        job = Job(id=f"job-{secrets.token_hex(8)}")
        waiting: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[job.id] = waiting
        self._sent[job.id] = time.monotonic()
        letter = Letter(topics.jobs(LAB, POOL), encode(job), schema_of(Job), 0, response_topic=self._reply)
        await self._connection.deliver(letter)
        return await waiting


async def load(client: Client, at_once: int, count: int) -> list[float]:
    """Keep that many jobs under way until ``count`` are done."""
    left = iter(range(count))

    async def one_after_the_other() -> list[float]:
        return [await client.job() for _ in left]

    rows = await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return [seconds for row in rows for seconds in row]


def memory(pid: int, *kinds: str) -> float:
    """MiB of a process by kinds of /proc/PID/smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return float(sum(sizes[kind] for kind in kinds)) / 1024


async def measure(name: str, count: int, jobs: int, folder: Path) -> Figures:
    """One kind of work, from a new broker on."""
    with mosquitto(folder) as (port, broker_pid):
        to = Address("127.0.0.1", port)
        with agents(count, folder, to, WORKS[name]) as pids:
            async with Connection(to) as connection:
                client = Client(connection)
                listening = asyncio.create_task(client.listen())
                await client.begin(count)
                alone = await load(client, 1, ALONE)
                started = time.monotonic()
                crowded = await load(client, count, jobs)
                rate = jobs / (time.monotonic() - started)
                private = statistics.median(memory(pid, "Private_Clean", "Private_Dirty") for pid in pids)
                listening.cancel()
                with suppress(asyncio.CancelledError):
                    await listening
            return Figures(
                name, rate, alone, crowded, statistics.mean(client.sizes), memory(broker_pid, "Rss"), private
            )


def quantile(seconds: list[float], share: float) -> str:
    """The time within which that share of the jobs was done."""
    return f"{sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))] * 1000:.0f} ms"


@click.command()
@click.option("--agents", "count", default=200, show_default=True)
@click.option("--jobs", default=2000, show_default=True)
@click.option("--work", type=click.Choice([*WORKS, "both"]), default="both", show_default=True)
def main(count: int, jobs: int, work: str) -> None:
    """Measure a lab on this machine."""
    table = Table(title=f"{count} agents, {jobs} jobs, one Mosquitto, {os.cpu_count()} cores for all of it")
    for title in ("work", "jobs/s", "alone p50", "p99", "crowded p50", "p99", "a result", "broker", "an agent more"):
        table.add_column(title, justify="left" if title == "work" else "right")
    for name in WORKS if work == "both" else (work,):
        with tempfile.TemporaryDirectory(prefix="tdx-cpuid-bench-") as folder:
            print(f"{name}: starting {count} agents", file=sys.stderr)
            got = asyncio.run(measure(name, count, jobs, Path(folder)))
        table.add_row(
            got.work,
            f"{got.rate:.0f}",
            *(quantile(times, share) for times in (got.alone, got.crowded) for share in (0.5, 0.99)),
            f"{got.result_bytes / 1024:.0f} KiB",
            f"{got.broker_mib:.0f} MiB",
            f"{got.agent_mib:.1f} MiB",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
