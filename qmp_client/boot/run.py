"""Start a guest that QEMU holds, wait until it is up, and take it down again, however that goes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Literal

from qmp_client.boot.console import Console
from qmp_client.boot.devices import Channels
from qmp_client.boot.guest_agent import GuestAgent
from qmp_client.boot.model import Booted, BootWish, Ending
from qmp_client.qmp.session import CommandRefused, Session, SessionLost

LAST_WORDS = 2.0
"""Seconds for what QEMU has not passed on yet when the guest has ended."""
ASK_AGAIN = 3.0
"""Seconds after which a guest is asked again: one that has just come up may not look at its power button yet."""
ENDED = {
    "guest-shutdown": "it switched itself off",
    "guest-reset": "it reset itself",
    "guest-panic": "it panicked",
}
"""QEMU's ``ShutdownCause``, for people."""


async def boot(session: Session, ends: Channels, wish: BootWish, guest: Literal["td", "emulated"]) -> Booted:
    """Let the guest run until it is up or given up, and end it.

    QEMU is told to quit when this returns. Raises CommandRefused and SessionLost when it does not even start the guest.
    """
    console = Console(wish.pattern, wish.console_kib << 10)
    await session.execute("cont")
    started = time.monotonic()
    agent = GuestAgent(ends.agent)
    reading = asyncio.create_task(console.read(ends.console))
    ended = asyncio.create_task(session.until_shutdown())
    calling = asyncio.create_task(_call(agent)) if wish.guest_agent else None
    try:
        why = await _until_up(console, calling, ended, reading, wish)
        seconds = time.monotonic() - started
        ending = await _take_down(session, ended, agent if _answered(calling) else None, wish, why)
        with suppress(SessionLost):
            await session.execute("quit")
        await asyncio.wait({reading}, timeout=LAST_WORDS)
    finally:
        for task in filter(None, (reading, ended, calling)):
            task.cancel()
    return Booted(
        guest=guest,
        up=not why,
        why=why,
        seconds=round(seconds, 3),
        line=console.line,
        agent=_answered(calling),
        ending=ending,
        console=console.text,
        console_bytes=console.written,
    )


async def _call(agent: GuestAgent) -> str:
    """The agent's version; empty when QEMU hangs up, which is noticed elsewhere."""
    with suppress(ConnectionError):
        return await agent.ready()
    return ""


def _answered(calling: asyncio.Task[str] | None) -> str:
    """The agent's version, once it has answered."""
    return calling.result() if calling and calling.done() and not calling.cancelled() else ""


async def _until_up(
    console: Console,
    calling: asyncio.Task[str] | None,
    ended: asyncio.Task[str],
    reading: asyncio.Task[None],
    wish: BootWish,
) -> str:
    """Wait for everything that is wanted; return what did not come, in a sentence, or an empty one."""
    wanted = asyncio.create_task(_signs(console, calling, wish))
    events: set[asyncio.Task[Any]] = {wanted, ended}
    try:
        await asyncio.wait(events, timeout=wish.seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        wanted.cancel()
    if ended.done():  # it may have said it and ended at once
        await asyncio.wait({reading}, timeout=LAST_WORDS)
    missing = (
        [f"no line of its console matched {wish.pattern!r}"] if wish.pattern and not console.found.is_set() else []
    )
    if calling and not _answered(calling):
        missing.append("its agent did not answer")
    if not missing:
        return ""
    last = next((line for line in reversed(console.text.splitlines()) if line.strip()), "")
    when = f"within {wish.seconds:g} s"
    if ended.done():
        when = f"before {ENDED.get(ended.result(), 'QEMU ended')}"
    said = f"the last line was {last.strip()[:200]!r}" if last else "it wrote nothing"
    return f"the guest is not up: {' and '.join(missing)} {when}; {said}"


async def _signs(console: Console, calling: asyncio.Task[str] | None, wish: BootWish) -> None:
    if wish.pattern:
        await console.found.wait()
    if calling:
        await calling


async def _take_down(
    session: Session, ended: asyncio.Task[str], agent: GuestAgent | None, wish: BootWish, why: str
) -> Ending:
    """End the guest: ask it if it is up, by its agent or the power button; say whether it obeyed."""
    if ended.done():
        return Ending.BY_ITSELF
    if why:
        return Ending.FORCED
    give_up = time.monotonic() + wish.shutdown_seconds
    while not ended.done() and (left := give_up - time.monotonic()) > 0:
        with suppress(SessionLost, CommandRefused, ConnectionError):
            if agent is not None:
                await agent.shut_down()
            else:
                await session.execute("system_powerdown")
        await asyncio.wait({ended}, timeout=min(left, ASK_AGAIN))
    if not ended.done():
        return Ending.FORCED
    return Ending.ORDERLY if ended.result() == "guest-shutdown" else Ending.BY_ITSELF
