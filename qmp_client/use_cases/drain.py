"""A host takes no more jobs of its pool, or takes them again."""

from __future__ import annotations

import asyncio
import sys
from typing import NamedTuple

from aiomqtt import MqttError

from qmp_client.errors import QemuError
from qmp_client.lab.address import Address, At
from qmp_client.lab.broker import Connection, refused
from qmp_client.lab.draining import Draining
from qmp_client.lab.names import check_name


class Request(NamedTuple):
    """What ``drain`` was asked."""

    at: At
    host: str
    undo: bool
    wait: bool
    timeout: float | None


def run(request: Request) -> int:
    """Say it to the host and wait until it is so.

    Raises UsageError for a host that the lab has not, MissingError for a broker that cannot be reached, QemuError when
    it is not so in time.
    """
    address = request.at.address()
    draining = Draining(request.at.lab, check_name("HOST", request.host), drain=not request.undo, wait=request.wait)
    try:
        print(asyncio.run(_drain(address, draining, request.timeout)))
    except MqttError as error:
        raise refused(address, error) from error
    except TimeoutError as error:
        done = "taken back" if request.undo else "drained"
        how = "it has been told, and will be" if draining.told else "it could not be told"
        raise QemuError(f"{request.host} is not {done} after {request.timeout:g} s; {how}") from error
    return 0


async def _drain(address: Address, draining: Draining, timeout: float | None) -> str:
    async with asyncio.timeout(timeout), Connection(address) as connection:
        return await draining.run(connection, lambda text: print(text, file=sys.stderr, flush=True))
