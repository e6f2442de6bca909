"""``tdx-cpuid agent``: this host takes jobs from a broker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qmp_client.cli.broker_options import broker_options, the_address
from qmp_client.errors import MissingError, UsageError
from qmp_client.qemu import firmware, tdx_host

if TYPE_CHECKING:
    from qmp_client.lab.config import Config
    from qmp_client.lab.observer import Observer
    from qmp_client.lab.service import Service


EXAMPLES = """
\b
Examples:
  tdx-cpuid agent --broker mqtt://localhost --pool emr --config agent.toml
  tdx-cpuid agent --broker mqtts://agent@broker.example --ca ca.pem --password-file secret --lab bay \\
      --pool emr --config /etc/tdx-cpuid/agent.toml
"""


@click.command("agent", short_help="Take jobs for this host from a broker.", epilog=EXAMPLES)
@broker_options
@click.option("--pool", required=True, help="The pool whose jobs this host takes.")
@click.option(
    "--config",
    "config_file",
    required=True,
    type=click.Path(path_type=Path),
    help="What jobs may choose from (TOML; docs/lab/how-to.md).",
)
@click.option("--host", help="This host's name in the lab.  [default: its host name]")
@click.option("--state", type=click.Path(path_type=Path), help="The SQLite file with its jobs and results.")
def command(
    broker: str,
    lab: str,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    password_file: Path | None,
    pool: str,
    config_file: Path,
    host: str | None,
    state: Path | None,
) -> int:
    """Take jobs from a broker until SIGTERM or Ctrl-C, and tell when guests of this host see another CPUID.

    An accepted job is stored before it is acknowledged, and its result until the broker has it.
    """
    import logging  # noqa: PLC0415

    from qmp_client.lab.config import load  # noqa: PLC0415
    from qmp_client.lab.letters import Agent  # noqa: PLC0415
    from qmp_client.lab.names import check_name, host_name  # noqa: PLC0415
    from qmp_client.lab.store import Store  # noqa: PLC0415

    address = the_address(broker, ca, certificate, key, password_file)
    agent = Agent(check_name("--lab", lab), check_name("--pool", pool), host_name(host), load(config_file))
    _check_host(agent.config, config_file)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    path = state or _state_folder() / f"{agent.lab}-{agent.host}.sqlite"
    store = Store(path, agent.config.limits.jobs_kept)
    try:
        from qmp_client.lab.service import Service  # noqa: PLC0415

        observer = _observer(agent.config, path)
        _run(lambda: Service(agent, store, address, observer), path)
    finally:
        store.close()
    return 0


def _observer(config: Config, store: Path) -> Observer:
    from qmp_client.lab.observer import Observer  # noqa: PLC0415

    if config.metrics is None:
        return Observer()
    from qmp_client.lab.metrics import Metrics  # noqa: PLC0415

    return Metrics(config.metrics.listen, store)


def _run(make: Callable[[], Service], store: Path) -> None:
    import asyncio  # noqa: PLC0415
    import signal  # noqa: PLC0415
    import sqlite3  # noqa: PLC0415

    async def until_told_to_stop() -> None:
        service = make()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, service.stop)
        await service.run()

    unwritten: BaseException | None = None
    try:
        asyncio.run(until_told_to_stop())
    except* sqlite3.Error as group:
        unwritten = group
    while isinstance(unwritten, BaseExceptionGroup):
        unwritten = unwritten.exceptions[0]
    if unwritten is not None:
        raise MissingError(
            f"{store} cannot be written: {unwritten}",
            hint="what it promised so far is stored; mend the disk and start the agent again",
        ) from unwritten


def _check_host(config: Config, config_file: Path) -> None:
    """Find out now what would make every job fail."""
    from qmp_client.names import a_module, a_platform  # noqa: PLC0415

    for name, path in config.qemu.items():
        if shutil.which(path) is None:
            raise UsageError(f"{config_file}: `qemu.{name}`: {path} is not a program that can be run")
    firmware.check(Path(config.firmware))
    for name, path in config.boot.disks.items() if config.boot else ():
        if not os.access(path, os.R_OK) or not Path(path).is_file():
            raise UsageError(f"{config_file}: `boot.disks.{name}`: {path} is not a file that can be read")
    for module in config.modules:
        a_module(module)
    for platform in config.platforms:
        a_platform(platform)
    if not config.simulated and (lacking := tdx_host.what_is_missing()):
        raise MissingError(
            f"this host has no TDX: {lacking}", hint=f"`modules` and `platforms` in {config_file} simulate one"
        )


def _state_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tdx-cpuid"
