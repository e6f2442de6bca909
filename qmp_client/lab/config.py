"""The agent's configuration: everything that a job may choose from. A job names; only this file says what is run."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from qmp_client import given
from qmp_client.errors import UsageError
from qmp_client.lab.wire import Cpu, Name

Names = Annotated[tuple[Name, ...], Meta(min_length=1)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What jobs may use of this host."""

    jobs_at_once: Annotated[int, Meta(ge=1, le=256)] = 1
    jobs_waiting: Annotated[int, Meta(ge=1)] = 1000
    """Accepted jobs that have no result; further ones are rejected."""
    jobs_kept: Annotated[int, Meta(ge=1)] = 10_000
    """Jobs whose results stay in the store; an older one that is sent again is run again."""
    seconds: Annotated[float, Meta(gt=0)] = 60
    """For one job, from its start to its report."""
    memory_mib: Annotated[int, Meta(ge=256)] = 8192
    """Address space of each process that a job starts."""
    max_vcpus: Annotated[int, Meta(ge=1, le=4096)] = 16
    attempts: Annotated[int, Meta(ge=1)] = 5
    """How often a job is begun whose agent died with it, before it counts as failed."""


class Drifting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What the agent measures by itself."""

    cpu: tuple[Cpu, ...] = ("host",)
    every_minutes: Annotated[float, Meta(gt=0)] = 60
    """Besides once when it starts, and whenever a part of the host was replaced."""
    look_every_seconds: Annotated[float, Meta(gt=0)] = 20
    """How often to look whether one was."""


class Booting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Guests that jobs may boot."""

    disks: Annotated[dict[Name, str], Meta(min_length=1)]
    """Raw or qcow2 images by the names that jobs call them by. They stay as they are."""
    seconds: Annotated[float, Meta(gt=0)] = 300
    """The most that a guest may take until it is up, besides ``limits.seconds`` for the negotiation."""
    shutdown_seconds: Annotated[float, Meta(gt=0)] = 30
    """For a guest to switch itself off when it is asked to."""
    memory_mib: Annotated[int, Meta(ge=64)] = 1024
    console_kib: Annotated[int, Meta(ge=1, le=1024)] = 64
    """How much of a guest's console is kept: the last part."""


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Where Prometheus finds the agent."""

    listen: Annotated[str, Meta(pattern=r"^[0-9A-Za-z.:\[\]-]*:[0-9]{1,5}$(?!\n)")]
    """ADDRESS:PORT."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """One host. Of each list the first is taken by a job that names none."""

    qemu: Annotated[dict[Name, str], Meta(min_length=1)]
    """QEMU binaries by the names that jobs call them by."""
    firmware: str
    """The TDVF image."""
    machines: Names = ("q35",)
    cpu_models: Annotated[tuple[str, ...], Meta(min_length=1)] = ("host",)
    """Shell patterns for the model, the part of ``-cpu`` before the first comma."""
    modules: tuple[Name, ...] = ()
    """TDX module versions to simulate; the first one is the one that the host has. Empty: on the host's own TDX."""
    platforms: tuple[Name, ...] = ()
    options: dict[Name, Annotated[tuple[str, ...], Meta(min_length=1)]] = {}
    """Words that QEMU's command line may get more, by the names that jobs call them by."""
    limits: Limits = Limits()
    drift: Drifting = Drifting()
    boot: Booting | None = None
    """Without it, no guest is booted."""
    metrics: Metrics | None = None
    result_hours: Annotated[float, Meta(gt=0, le=1000)] = 24
    """How long the broker keeps a result for those who come late."""

    @property
    def simulated(self) -> bool:
        """Whether the TDs are simulated."""
        return bool(self.modules)

    def allows_model(self, cpu: str) -> bool:
        """Whether a ``-cpu`` names a model that is on the list."""
        return any(fnmatchcase(cpu.partition(",")[0], pattern) for pattern in self.cpu_models)


def load(path: Path) -> Config:
    """Read the file. Raises UsageError that names the key which is wrong."""
    try:
        return parse(given.toml("the agent's configuration", path))
    except ValueError as error:
        raise UsageError(f"{path}: {error}", hint="docs/lab/how-to.md has an example") from error


def parse(data: dict[str, Any]) -> Config:
    """Make the configuration of TOML's tables. Raises ValueError that names the key which is wrong. Pure."""
    config = msgspec.convert(data, Config)
    if bool(config.modules) != bool(config.platforms):
        raise ValueError("`modules` and `platforms` belong together: both to simulate, neither on the host's own TDX")
    if outside := [cpu for cpu in config.drift.cpu if not config.allows_model(cpu)]:
        raise ValueError(f"`drift.cpu`: {outside[0]} is not among `cpu-models`")
    return config
