"""An agent ends when it is told to, and when it cannot go on; a service manager sees both."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from qmp_client.lab.broker import Connection
from qmp_client.lab.config import parse
from qmp_client.lab.ending import STUCK
from qmp_client.lab.letters import Agent
from qmp_client.lab.observer import Observer
from qmp_client.lab.service import Service
from qmp_client.lab.service_manager import ALIVE, READY, STOPPING, notify
from qmp_client.lab.store import Letter, Store
from tests.lab.conftest import Start
from tests.lab.processes import LAB, POOL, Broker, listening, online
from tests.waiting import PATIENCE


async def test_a_wait_that_is_cancelled_when_its_answer_comes_is_cancelled(broker: Broker) -> None:
    """Python 3.11's wait_for is not: an agent that was told to end at such a moment went on."""
    connection = Connection(broker.address)
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(connection._wait_for(answer, None))
    await asyncio.sleep(0)
    answer.set_result(None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_nobody_expects_ends_the_agent_and_is_said(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(most: int) -> list[Letter]:
        raise ZeroDivisionError("one of those days")

    config = parse({"qemu": {"none": "/n"}, "firmware": "/n", "drift": {"cpu": []}})
    reasons: list[str] = []
    store = Store(tmp_path / "s.sqlite")
    monkeypatch.setattr(store, "outbox", broken)
    service = Service(
        Agent(LAB, POOL, "alpha", config), store, broker.address, Observer(), ending=lambda: reasons.append("ends")
    )
    with pytest.raises(ExceptionGroup) as group:
        async with asyncio.timeout(PATIENCE):
            await service.run()
    store.close()
    assert group.group_contains(ZeroDivisionError)
    assert "ends: ZeroDivisionError: one of those days" in caplog.text
    assert reasons == ["ends"]


STUCK_IN_ITS_LOOP = """
import asyncio, time
from qmp_client.lab.ending import Ending
async def deaf():
    Ending(0.2).begin()
    time.sleep(3600)
asyncio.run(deaf())
"""


def test_an_agent_that_is_stuck_is_ended_and_says_in_what() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK_IN_ITS_LOOP], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == STUCK
    assert "did not end within 0.2 s, and is ended" in done.stderr
    assert "in deaf" in done.stderr


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """The end of a service manager that hears what it is told."""
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "n"))
    heard.settimeout(PATIENCE)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
    return heard


async def test_a_service_manager_hears_of_an_agent(
    broker: Broker, agent: Start, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    alpha = agent()
    with manager:
        said = [manager.recv(100).decode() for _ in range(4)]
        assert said == [READY, ALIVE, ALIVE, ALIVE]
        async with listening(broker.address) as listener:
            await online(listener)
        assert await asyncio.to_thread(alpha.kill, signal.SIGTERM) == 0
        while said[-1] != STOPPING:
            said.append(manager.recv(100).decode())


def test_an_abstract_socket_and_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0tdx-cpuid-{tmp_path}")
        heard.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@tdx-cpuid-{tmp_path}")
        notify(READY)
        assert heard.recv(100) == READY.encode()
    for nobody in (f"@tdx-cpuid-{tmp_path}", str(tmp_path / "nobody"), "vsock:2:1", ""):
        monkeypatch.setenv("NOTIFY_SOCKET", nobody)
        notify(READY)
