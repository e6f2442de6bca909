"""A real broker and real agents, to be started, killed and started again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import aiomqtt
import msgspec
from aiomqtt import MqttError

from qmp_client.lab import topics
from qmp_client.lab.address import Address
from qmp_client.lab.broker import Connection
from qmp_client.lab.store import Letter
from qmp_client.lab.wire import Job, Message, Status, encode, schema_of
from qmp_client.qemu import firmware
from qmp_client.qemu.locate import find_qemu
from tests.waiting import PATIENCE, until

LAB = "bay"
POOL = "emr"
M = TypeVar("M", bound=Message)


def free_port() -> int:
    """A port that stays free until it is listened on, also while a broker is away.

    It is none of those from which the kernel picks one for a connection that is made meanwhile.
    """
    picked_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(picked_from // 2, picked_from)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Broker:
    """Mosquitto on a port of its own; what it has to remember is in its folder."""

    def __init__(self, folder: Path, *lines: str, address: Address | None = None) -> None:
        self.port = free_port()
        self.address = address._replace(port=self.port) if address else Address("127.0.0.1", self.port)
        self._config = folder / "mosquitto.conf"
        self._process: subprocess.Popen[bytes] | None = None
        said = lines or ("allow_anonymous true",)
        persistence = ("persistence true", f"persistence_location {folder}/", "autosave_interval 1")
        text = "\n".join([f"listener {self.port} 127.0.0.1", *persistence, *said])
        self._config.write_text(text + ("" if os.getuid() else "\nuser root") + "\n")

    @property
    def url(self) -> str:
        return f"mqtt{'s' if self.address.tls else ''}://{self.address.host}:{self.port}"

    def start(self) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        assert program, "apt-get install mosquitto"
        self._process = subprocess.Popen([program, "-c", self._config], stderr=subprocess.DEVNULL)
        until(self._listens, "mosquitto listens")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "mosquitto does not start"
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), PATIENCE):
            return True
        return False

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None


class AgentProcess:
    """``tdx-cpuid agent`` as a process."""

    def __init__(self, broker: Broker, folder: Path, host: str, **config: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.host = host
        self.state = folder / f"{host}.sqlite"
        self._config = folder / f"{host}.json"
        self._log = folder / f"{host}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._broker = broker
        self.options: list[str] = []
        self.configure(**config)

    def configure(self, **config: Any) -> None:
        """Write the configuration: one QEMU, the real one, on one simulated module, or what is given."""
        whole = {
            "qemu": {"built": str(find_qemu(None))},
            "firmware": os.environ.get("TDX_CPUID_FIRMWARE") or str(firmware.default()),
            "modules": ["1.5.05"],
            "platforms": ["emerald-rapids"],
        } | config
        self._config.with_suffix(".toml").write_text(_toml(whole))

    def start(self) -> None:
        command = [sys.executable, "-m", "qmp_client.cli.entry", "agent", "--broker", self._broker.url, "--lab", LAB]
        command += ["--pool", POOL, "--host", self.host, "--state", str(self.state)]
        command += ["--config", str(self._config.with_suffix(".toml")), *self.options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End it; return its exit code."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(number)
        code = self._process.wait(PATIENCE)
        self._process = None
        return code

    @property
    def descriptors(self) -> int:
        """One more than the highest open descriptor of the running agent."""
        assert self._process is not None
        return 1 + max(int(one.name) for one in Path(f"/proc/{self._process.pid}/fd").iterdir())

    def limit(self, what: int, most: int) -> None:
        """Set a resource limit of the running agent."""
        assert self._process is not None
        resource.prlimit(self._process.pid, what, (most, most))

    def wait(self) -> int:
        """Wait until it ends by itself; return its exit code."""
        assert self._process is not None
        return self._process.wait(PATIENCE)

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


def _toml(data: dict[str, Any], table: str = "") -> str:
    plain = [f"{key} = {json.dumps(value)}" for key, value in data.items() if not isinstance(value, dict)]
    tables = [
        f"[{table}{key}]\n{_toml(value, f'{table}{key}.')}" for key, value in data.items() if isinstance(value, dict)
    ]
    return "\n".join([*plain, *tables])


class Listener:
    """Everything that was heard below the lab's topics, in order."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.heard: list[aiomqtt.Message] = []
        self._more = asyncio.Event()

    async def listen(self) -> None:
        async for message in self.connection.messages:
            self.connection.acknowledge(message)
            self.heard.append(message)
            self._more.set()

    async def until(self, found: Callable[[aiomqtt.Message], bool]) -> aiomqtt.Message:
        """The first message, from the beginning, that is as wanted."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self._more.clear()
                for message in self.heard:
                    if found(message):
                        return message
                await self._more.wait()

    async def message(self, topic: str, kind: type[M], found: Callable[[M], bool] = lambda _: True) -> M:
        """The first message on a topic that is as wanted, read."""
        message = await self.until(
            lambda heard: heard.topic.value == topic and found(msgspec.json.decode(heard.payload, type=kind))
        )
        return msgspec.json.decode(message.payload, type=kind)

    async def submit(self, payload: bytes | Job, topic: str = topics.jobs(LAB, POOL), **more: Any) -> None:
        data = encode(payload) if isinstance(payload, Job) else payload
        await self.connection.deliver(Letter(topic, data, schema_of(Job), 0, **more))


@asynccontextmanager
async def listening(address: Address, *filters: str) -> AsyncIterator[Listener]:
    """A connection that hears what matches the filters, or everything of the lab."""
    async with Connection(address) as connection:
        listener = Listener(connection)
        task = asyncio.create_task(listener.listen())
        for one in filters or (f"tdx-cpuid/{LAB}/#",):
            await connection.listen(one)
        try:
            yield listener
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, MqttError):
                await task


class PatientQemu:
    """The real QEMU, which begins only when it is let go: its job is running for as long as a test wants."""

    def __init__(self, folder: Path) -> None:
        self._go = folder / "go"
        self.path = folder / "qemu-that-waits"
        self.path.write_text(f'#!/bin/sh\nwhile [ ! -e {self._go} ]; do sleep 0.1; done\nexec {find_qemu(None)} "$@"\n')
        self.path.chmod(0o755)

    @property
    def config(self) -> dict[str, Any]:
        """For an agent: no other QEMU, and all the time that it needs."""
        return {"qemu": {"patient": str(self.path)}, "limits": {"seconds": PATIENCE}}

    def go(self) -> None:
        self._go.touch()


async def online(listener: Listener, host: str = "alpha") -> None:
    """Wait until the agent takes jobs."""
    await listener.message(topics.status(LAB, host), Status, lambda status: status.state == "online")
