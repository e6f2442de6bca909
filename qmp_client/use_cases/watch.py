"""A lab, live."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import NamedTuple

import msgspec
from rich.console import Console, RenderableType
from rich.live import Live

from qmp_client.errors import UsageError
from qmp_client.lab.address import At
from qmp_client.lab.board import Board
from qmp_client.lab.board_table import table
from qmp_client.lab.hearing import Heard, hear_a_lab
from qmp_client.report.console import console_for


class Request(NamedTuple):
    """What ``watch`` was asked."""

    at: At
    once: bool
    form: str


def run(request: Request) -> int:
    """Show the lab until Ctrl-C, or what its broker has kept."""
    address = request.at.address()
    said = hear_a_lab(address, request.at.lab, _tell, once=request.once)
    with suppress(BrokenPipeError, KeyboardInterrupt):
        asyncio.run(_lines(said, request.once) if request.form == "json" else _board(said, request.once))
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def _lines(said: AsyncIterator[Heard | None], once: bool) -> None:
    """Every message as a line of JSON."""
    async for heard in said:
        if heard is not None:
            sys.stdout.buffer.write(msgspec.json.encode({"topic": heard.topic, "message": heard.message}) + b"\n")
            sys.stdout.buffer.flush()
        elif once:
            return


async def _board(said: AsyncIterator[Heard | None], once: bool) -> None:
    """Tables: those of what was kept, or a screen that follows."""
    console = console_for(sys.stdout)
    if once:
        await _show_what_was_kept(said, console)
    elif console.is_terminal:
        await _follow(said, console)
    else:
        raise UsageError(
            "a table that changes needs a terminal", hint="--once shows it as it is; --format json goes on"
        )


async def _show_what_was_kept(said: AsyncIterator[Heard | None], console: Console) -> None:
    board = Board()
    async for heard in said:
        if heard is None:
            break
        board.take(heard)
    console.print(table(board, plain=not console.is_terminal))


async def _follow(said: AsyncIterator[Heard | None], console: Console) -> None:
    board = Board()

    def drawn() -> RenderableType:
        return table(board, plain=False, height=console.height)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # or the screen stayed as it is
    with Live(drawn(), console=console, screen=True, refresh_per_second=4) as live:
        async for heard in said:
            if heard is not None and board.take(heard):
                live.update(drawn())
