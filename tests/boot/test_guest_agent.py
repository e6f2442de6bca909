"""The guest agent's protocol, with a peer that is late, talkative or hostile. A real agent: test_linux_guest.py."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from qmp_client.boot import guest_agent
from qmp_client.boot.guest_agent import GuestAgent
from tests.waiting import PATIENCE, eventually

Peer = Callable[[bytes], bytes]


@pytest.fixture
async def ends() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


async def speak(end: socket.socket, answer: Callable[[dict[str, object]], bytes]) -> None:
    """Answer each request."""
    loop = asyncio.get_running_loop()
    heard = b""
    while data := await loop.sock_recv(end, 4096):
        *lines, heard = (heard + data).split(b"\n")
        for line in lines:
            await loop.sock_sendall(end, answer(json.loads(line.lstrip(b"\xff"))))


def polite(request: dict[str, object]) -> bytes:
    if request["execute"] == "guest-info":
        return b'{"return": {"version": "9.2.1", "supported_commands": []}}\n'
    arguments = request["arguments"]
    assert isinstance(arguments, dict)
    return b"\xff" + json.dumps({"return": arguments["id"]}).encode() + b"\n"


async def version(ours: socket.socket, theirs: socket.socket, answer: Callable[[dict[str, object]], bytes]) -> str:
    peer = asyncio.create_task(speak(theirs, answer))
    try:
        async with asyncio.timeout(PATIENCE):
            return await GuestAgent(ours).ready()
    finally:
        peer.cancel()


async def test_an_agent_that_is_there(ends: tuple[socket.socket, socket.socket]) -> None:
    assert await version(*ends, polite) == "9.2.1"


def calls(end: socket.socket) -> int:
    """How many requests wait to be read."""
    with suppress(BlockingIOError):
        return end.recv(1 << 16, socket.MSG_PEEK).count(b"guest-sync")
    return 0


async def test_an_agent_that_comes_late_has_several_calls_to_answer(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_agent, "AGAIN", 0.05)
    ours, theirs = ends
    calling = asyncio.create_task(GuestAgent(ours).ready())
    await eventually(lambda: calls(theirs) > 2, "it was called several times")
    peer = asyncio.create_task(speak(theirs, polite))
    async with asyncio.timeout(PATIENCE):
        assert await calling == "9.2.1"
    peer.cancel()


async def test_what_is_no_answer_is_passed_over(ends: tuple[socket.socket, socket.socket]) -> None:
    def noisy(request: dict[str, object]) -> bytes:
        return b'\x00\xff{"half": \n[1,2]\n"text"\n{"return": 99999}\n{"error": {}}\n\n' + polite(request)

    def about(request: dict[str, object]) -> bytes:
        return noisy(request) if request["execute"] != "guest-info" else polite(request)

    assert await version(*ends, about) == "9.2.1"


async def test_an_answer_that_never_ends_takes_no_memory(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_agent, "LONGEST_ANSWER", 1000)
    flood = [b"x" * 10_000]

    def flooding(request: dict[str, object]) -> bytes:
        return (flood.pop() + b"\n" if flood else b"") + polite(request)

    assert await version(*ends, flooding) == "9.2.1"


async def test_qemu_hangs_up(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionError):
        await GuestAgent(ours).ready()
