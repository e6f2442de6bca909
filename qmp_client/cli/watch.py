"""``tdx-cpuid watch``: a lab, live."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qmp_client.cli.broker_options import broker_options, the_address
from qmp_client.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from qmp_client.lab.broker import Address
    from qmp_client.lab.hearing import Heard

EXAMPLES = """
\b
Examples:
  tdx-cpuid watch --broker mqtt://localhost
  tdx-cpuid watch --once
  tdx-cpuid watch --format json | jq -r 'select(.topic | endswith("/events/drift")) | .message.likely'
"""
AGAIN = 2.0
"""Seconds between two attempts to reach a broker that is gone."""


@click.command("watch", epilog=EXAMPLES)
@broker_options
@click.option("--once", is_flag=True, help="Show what the broker has kept, and end.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(
    broker: str,
    lab: str,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    password_file: Path | None,
    once: bool,
    form: str,
) -> int:
    """Show hosts, jobs and drift of a lab until Ctrl-C.

    Hosts are known at once; jobs and drift are seen as they happen. With --format json every message is a line.
    """
    import asyncio  # noqa: PLC0415
    from contextlib import suppress  # noqa: PLC0415

    from qmp_client.lab.names import check_name  # noqa: PLC0415

    address = the_address(broker, ca, certificate, key, password_file)
    show = _lines if form == "json" else _board
    with suppress(BrokenPipeError, KeyboardInterrupt):
        asyncio.run(show(_hear(address, check_name("--lab", lab), once), once))
    return 0


async def _hear(address: Address, lab: str, once: bool) -> AsyncIterator[Heard | None]:
    """What is said in the lab; None when what was retained has been said. Comes back after an outage."""
    import asyncio  # noqa: PLC0415

    from aiomqtt import MqttError  # noqa: PLC0415

    from qmp_client.lab import topics  # noqa: PLC0415
    from qmp_client.lab.broker import Connection, NotTaken  # noqa: PLC0415
    from qmp_client.lab.hearing import hear  # noqa: PLC0415
    from qmp_client.lab.submission import refused  # noqa: PLC0415

    every = topics.EVERY
    filters = [of(lab, every) for of in (topics.status, topics.capabilities, topics.rejected, topics.progress)]
    reached = False
    while True:
        try:
            async with Connection(address) as connection:
                async for heard in hear(connection, lab, *filters, topics.drift(lab)):
                    reached = True
                    yield heard
        except MqttError as error:
            if not reached or once or isinstance(error, NotTaken):
                raise refused(address, error) from error
            click.echo(f"the broker is gone ({error}); trying again", err=True)
            await asyncio.sleep(AGAIN)


async def _lines(said: AsyncIterator[Heard | None], once: bool) -> None:
    import msgspec  # noqa: PLC0415

    async for heard in said:
        if heard is not None:
            sys.stdout.buffer.write(msgspec.json.encode({"topic": heard.topic, "message": heard.message}) + b"\n")
            sys.stdout.buffer.flush()
        elif once:
            return


async def _board(said: AsyncIterator[Heard | None], once: bool) -> None:
    import signal  # noqa: PLC0415

    from rich.live import Live  # noqa: PLC0415

    from qmp_client.lab.board import Board  # noqa: PLC0415
    from qmp_client.lab.board_table import table  # noqa: PLC0415
    from qmp_client.report.console import console_for  # noqa: PLC0415

    console, board = console_for(sys.stdout), Board()
    plain = not console.is_terminal

    async def fold(shown: Callable[[], None]) -> None:
        async for heard in said:
            if heard is not None and board.take(heard):
                shown()
            elif heard is None and once:
                return

    if plain and not once:
        raise UsageError(
            "a table that changes needs a terminal", hint="--once shows it as it is; --format json goes on"
        )
    if once:
        await fold(lambda: None)
        console.print(table(board, plain=plain))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # or the screen stayed as it is

    def drawn() -> RenderableType:
        return table(board, plain=False, height=console.height)

    with Live(drawn(), console=console, screen=True, refresh_per_second=4) as live:
        await fold(lambda: live.update(drawn()))
