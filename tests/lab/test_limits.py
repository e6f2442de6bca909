"""A broker that does not take everything: what is too large is sent smaller, and nothing waits behind it."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from qmp_client.lab import topics
from qmp_client.lab.address import Address
from qmp_client.lab.broker import PACKET_TOO_LARGE
from qmp_client.lab.config import parse
from qmp_client.lab.fitting import MAGIC, expanded, forms
from qmp_client.lab.hearing import read
from qmp_client.lab.letters import Agent
from qmp_client.lab.observer import Observer
from qmp_client.lab.service import FIRST_PAUSE, LONGEST_PAUSE, Service
from qmp_client.lab.store import Letter, Store
from qmp_client.lab.wire import Change, Drift, Job, Outcome, Rejection, Result, Versions, encode, schema_of
from tests.lab.conftest import Start
from tests.lab.processes import LAB, POOL, Broker, listening, online
from tests.lab.test_clients import soon

LIMITS = ["max_packet_size", "message_size_limit"]
"""Mosquitto announces the first one; of the second nobody knows before a message is refused."""


@contextmanager
def limited(folder: Path, what: str, most: int) -> Iterator[Broker]:
    one = Broker(folder, "allow_anonymous true", f"{what} {most}")
    one.start()
    try:
        yield one
    finally:
        one.kill()


@pytest.fixture
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Broker]:
    with limited(tmp_path, *request.param) as one:
        yield one


@pytest.mark.parametrize("broker", [(what, 20_000) for what in LIMITS], indirect=True, ids=LIMITS)
async def test_a_result_above_the_limit_comes_compressed(broker: Broker, agent: Start) -> None:
    alpha = agent()
    async with listening(broker.address) as listener:
        await online(listener)
        done = await soon(broker, "submit", "--pool", POOL, "--id", "one", "--fail-on", "none")
        assert (done.returncode, "one on alpha" in done.stdout) == (0, True), done.stderr
        kept = await listener.until(lambda heard: heard.topic.value == topics.result(LAB, "one"))
    assert kept.payload.startswith(MAGIC)
    assert ("encoding", "gzip") in getattr(kept.properties, "UserProperty", ())
    assert isinstance(result := read(kept.payload), Result)
    assert result.report is not None
    assert f"sent {topics.result(LAB, 'one')} compressed" in alpha.log
    assert alpha.log.count("connected to") == 1


@pytest.mark.parametrize("broker", [(what, 2_000) for what in LIMITS], indirect=True, ids=LIMITS)
async def test_a_result_that_no_compression_helps_comes_without_its_report(broker: Broker, agent: Start) -> None:
    alpha = agent()
    async with listening(broker.address) as listener:
        await online(listener)
        done = await soon(broker, "submit", "--pool", POOL, "--cpu", "host", "--cpu", "host", "--id", "one")
        assert done.returncode == 4, done.stderr
        takes = "at most 2000 bytes" if "it takes at most" in alpha.log else "no message so large"
        assert f"the broker takes {takes}, so this result of " in done.stdout
        assert "came without its report" in done.stdout
    with closing(sqlite3.connect(alpha.state)) as db:
        (whole,) = db.execute("SELECT payload FROM results").fetchone()
    assert b'"report":{' in whole, "the host has it"
    assert alpha.log.count("connected to") == 1


@pytest.mark.parametrize("broker", [(LIMITS[0], 20_000)], indirect=True)
async def test_what_can_never_be_sent_is_set_aside_and_the_rest_goes_on(broker: Broker, agent: Start) -> None:
    """Nonsense in the outbox: a topic that is none, and more bytes than the broker takes, which say nothing."""
    alpha = agent()
    async with listening(broker.address) as listener:
        await online(listener)
        alpha.kill()
        nonsense = os.urandom(30_000)
        with closing(sqlite3.connect(alpha.state)) as db, db:
            insert = "INSERT INTO outbox (topic, payload, schema, retain, expiry) VALUES (?, ?, 's', 0, 0)"
            db.execute(insert, (f"tdx-cpuid/{LAB}/#", b"{}"))
            db.execute(insert, ("large", nonsense))
            db.execute(insert, ("t" * 70_000, b"{}"))
        alpha.start()
        await listener.submit(Job(id="behind"))
        await listener.until(lambda heard: heard.topic.value == topics.result(LAB, "behind"))
    with closing(sqlite3.connect(alpha.state)) as db:
        aside = dict(db.execute("SELECT what, payload FROM set_aside"))
    assert set(aside) == {f"tdx-cpuid/{LAB}/#", "large", "t" * 70_000}
    assert aside["large"] == nonsense
    assert alpha.log.count("set aside, and not sent") == 3


@pytest.mark.parametrize("broker", [(LIMITS[0], 400)], indirect=True)
async def test_a_job_above_the_limit_is_an_error_that_says_so(broker: Broker) -> None:
    done = await soon(broker, "submit", "--pool", POOL, "--cpu", f"host{',+avx' * 200}")
    assert done.returncode == 2, done.stderr
    assert "too large for the broker: " in done.stderr
    assert "it takes at most 400" in done.stderr


def test_forms_get_smaller_and_stay_messages() -> None:
    versions = Versions(module="m", microcode="", kernel="", qemu="", firmware="", platform="")
    change = Change(field="0x7.0.ebx[16]", name="avx512f", before=1, now=0)
    about: dict[str, Any] = {"host": "h", "pool": "p", "job": "j", "at": 1.0, "kvm": "simulated"}
    messages = [
        Result(**about, outcome=Outcome.FAILED, seconds=1, reason="why " * 5000),
        Drift(**about, cpu="host", likely="x", moved=(), before=versions, now=versions, changes=(change,) * 500),
        Rejection(host="h", digest="", reason="why " * 500),
    ]
    for message in messages:
        whole = Letter("t", encode(message), schema_of(type(message)), 0)
        as_it_is, compressed, cut = forms(whole, 2000)
        assert as_it_is == whole
        assert read(compressed.payload) == message
        assert len(cut.payload) < 1500
        assert type(read(cut.payload)) is type(message)


@pytest.mark.parametrize("payload", [MAGIC, MAGIC + b"nonsense", MAGIC + bytes(100)])
def test_what_only_looks_compressed_is_passed_over(payload: bytes) -> None:
    assert read(payload) is None


def test_no_more_is_expanded_than_a_message_may_have() -> None:
    _, bomb, *_ = forms(Letter("t", encode(Rejection(host="h", digest="", reason=" " * (32 << 20))), "s", 0), 0)
    assert len(bomb.payload) < 1 << 20
    assert expanded(bomb.payload, 16 << 20) is None
    assert read(bomb.payload) is None


@contextmanager
def hanging_up(reason: int) -> Iterator[Address]:
    """A broker that welcomes everybody and then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    with closing(server.accept()[0]) as client:
                        client.recv(4096)
                        client.sendall(b"\x20\x03\x00\x00\x00")
                        client.recv(4096)
                        client.sendall(bytes([0xE0, 2, reason, 0]))

        threading.Thread(target=serve, daemon=True).start()
        yield Address("127.0.0.1", server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


async def test_pauses_get_longer_while_nothing_is_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However often the broker says welcome."""
    pauses: list[float] = []
    config = parse({"qemu": {"none": "/n"}, "firmware": "/n", "drift": {"cpu": []}})
    store = Store(tmp_path / "s.sqlite")
    with hanging_up(PACKET_TOO_LARGE) as address:
        service = Service(Agent(LAB, POOL, "alpha", config), store, address, Observer())

        async def rest(pause: float) -> None:
            pauses.append(pause)
            if len(pauses) == 10:
                service.stop()
            await asyncio.sleep(0)

        monkeypatch.setattr("qmp_client.lab.service.rest", rest)
        async with asyncio.timeout(60):
            await service.run()
    store.close()
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[9] == LONGEST_PAUSE
    assert "Packet too large" in caplog.text
