"""What is wanted of a boot, and what became of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class BootWish(msgspec.Struct, frozen=True, kw_only=True):
    """A guest to start, and how to tell that it is up."""

    disk: str
    """A raw or qcow2 image. The guest's writes are thrown away."""
    pattern: str = ""
    """A regular expression that one line of the console has to match; empty: none is waited for."""
    guest_agent: bool = False
    """Whether the guest's QEMU agent has to answer."""
    seconds: float = 300
    """For the guest to be up, from its first instruction."""
    shutdown_seconds: float = 30
    """For the guest to switch itself off when it is asked to."""
    memory_mib: int = 1024
    console_kib: int = 64
    """How much of the console is kept: the last part."""


class Ending(StrEnum):
    """How a guest ended."""

    ORDERLY = "orderly"
    """It was asked to, and switched itself off."""
    FORCED = "forced"
    """It was asked to and did not, or was not up in time; QEMU was ended."""
    BY_ITSELF = "by-itself"
    """Nobody had asked it to."""


class Booted(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What became of a guest."""

    guest: Literal["td", "emulated"]
    """Whether it ran in the TD, or, on a simulated host, in plain emulation (TCG): a simulated TD runs no code."""
    up: bool
    """Whether everything that was waited for came."""
    why: str = ""
    """What did not come, in a sentence."""
    seconds: Annotated[float, Meta(ge=0)]
    """From the guest's first instruction until it was up, or until it was given up."""
    line: str = ""
    """The line of the console that was waited for."""
    agent: str = ""
    """The version of the guest's agent, if that was waited for."""
    ending: Ending
    console: str
    """The last part of what the guest wrote to its console, without control sequences."""
    console_bytes: Annotated[int, Meta(ge=0)]
    """How much it wrote in all."""
