"""``tdx-cpuid drain``: a host takes no more jobs of its pool, or takes them again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qmp_client.cli.broker_options import broker_options, the_address
from qmp_client.errors import QemuError, UsageError, nearest

if TYPE_CHECKING:
    import asyncio

    from qmp_client.lab.broker import Address

EXAMPLES = """
\b
Examples:
  tdx-cpuid drain --broker mqtt://localhost emr-07      # returns when its jobs are done
  tdx-cpuid drain emr-07 --undo
"""


SOME = 10
"""How many hosts are named to somebody who named none of them."""


@click.command("drain", short_help="Let a host finish its jobs and take no more.", epilog=EXAMPLES)
@broker_options
@click.argument("host")
@click.option("--undo", is_flag=True, help="Let the host take jobs again.")
@click.option("--wait/--no-wait", default=True, help="--no-wait says it and leaves.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds to wait.  [default: no limit]")
def command(
    broker: str,
    lab: str,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    password_file: Path | None,
    host: str,
    undo: bool,
    wait: bool,
    timeout: float | None,
) -> int:
    """Take a host out of its pool and wait until it has finished what it accepted. It stays out until --undo.

    A host that is away learns of it when it comes back; jobs that name the host still run.
    """
    import asyncio  # noqa: PLC0415

    from aiomqtt import MqttError  # noqa: PLC0415

    from qmp_client.lab.names import check_name  # noqa: PLC0415
    from qmp_client.lab.submission import refused  # noqa: PLC0415

    address = the_address(broker, ca, certificate, key, password_file)
    check_name("--lab", lab)

    told = asyncio.Event()

    async def run() -> None:
        async with asyncio.timeout(timeout):
            await _drain(address, lab, check_name("HOST", host), told, drain=not undo, wait=wait)

    try:
        asyncio.run(run())
    except MqttError as error:
        raise refused(address, error) from error
    except TimeoutError as error:
        done = "taken back" if undo else "drained"
        how = "it has been told, and will be" if told.is_set() else "it could not be told"
        raise QemuError(f"{host} is not {done} after {timeout:g} s; {how}") from error
    return 0


async def _drain(address: Address, lab: str, host: str, told: asyncio.Event, *, drain: bool, wait: bool) -> None:
    from qmp_client.lab import topics  # noqa: PLC0415
    from qmp_client.lab.broker import Connection  # noqa: PLC0415
    from qmp_client.lab.hearing import hear  # noqa: PLC0415
    from qmp_client.lab.wire import Drain, Status  # noqa: PLC0415

    aims = ("drained",) if drain else ("online",)
    states: dict[str, Status] = {}
    async with Connection(address) as connection:
        async for heard in hear(connection, lab, topics.status(lab, topics.EVERY)):
            if heard is None:
                if host not in states:
                    known = sorted(states)
                    more = f" and {len(known) - SOME} more" if len(known) > SOME else ""
                    hint = nearest(host, known) or f"it knows {', '.join(known[:SOME]) or 'none'}{more}"
                    raise UsageError(f"the lab {lab} has no host {host}", hint=hint)
                await connection.say(topics.drain(lab, host), Drain(drain=drain), retain=True)
                told.set()
                if states[host].state == "offline":
                    click.echo(f"{host} is offline; it learns of it when it comes back")
                    return
                if not wait:
                    click.echo(f"{host} has been told")
                    return
            elif isinstance(heard.message, Status) and heard.topic == topics.status(lab, heard.message.host):
                states[heard.message.host] = heard.message
            if told.is_set() and (status := states[host]).state in aims:
                click.echo(f"{host} {'is drained' if drain else 'takes jobs again'}")
                return
            if told.is_set() and heard is not None and states[host].state == "draining":
                click.echo(f"{host} finishes {status.running + status.waiting} jobs", err=True)
