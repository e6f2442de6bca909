"""This host takes jobs from a broker until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from qmp_client.errors import MissingError
from qmp_client.lab.address import At
from qmp_client.lab.config import Config, load
from qmp_client.lab.ending import Ending
from qmp_client.lab.host_check import check_host
from qmp_client.lab.letters import Agent
from qmp_client.lab.metrics import Metrics
from qmp_client.lab.names import check_name, host_name
from qmp_client.lab.observer import Observer
from qmp_client.lab.service import Service
from qmp_client.lab.store import Store


class Request(NamedTuple):
    """What ``agent`` was asked."""

    at: At
    pool: str
    config_file: Path
    host: str | None
    state: Path | None


def run(request: Request) -> int:
    """Be an agent until SIGTERM or SIGINT.

    Raises UsageError and MissingError for what would make every job fail, and for a store that cannot be used.
    """
    address = request.at.address()
    agent = Agent(
        request.at.lab, check_name("--pool", request.pool), host_name(request.host), load(request.config_file)
    )
    check_host(agent.config, request.config_file)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    path = request.state or _state_folder() / f"{agent.lab}-{agent.host}.sqlite"
    store = Store(path, agent.config.limits.jobs_kept)
    try:
        observer = _observer(agent.config, path)
        ending = Ending()
        try:
            _serve(lambda: Service(agent, store, address, observer, ending=ending.begin), path)
        finally:
            ending.over()
    finally:
        store.close()
    return 0


def _observer(config: Config, store: Path) -> Observer:
    return Observer() if config.metrics is None else Metrics(config.metrics.listen, store)


def _serve(make: Callable[[], Service], store: Path) -> None:
    ended: BaseException | None = None
    try:
        asyncio.run(_until_told_to_stop(make))
    except* Exception as group:
        ended = _first(group)  # what is raised here would come out as a group
    if isinstance(ended, sqlite3.Error):
        raise MissingError(
            f"{store} cannot be written: {ended}",
            hint="what it promised so far is stored; mend the disk and start the agent again",
        ) from ended
    if ended is not None:
        raise ended


async def _until_told_to_stop(make: Callable[[], Service]) -> None:
    service = make()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, service.stop)
    await service.run()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _state_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tdx-cpuid"
