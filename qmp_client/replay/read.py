"""Reading what ``tdx-cpuid sim --record FILE`` wrote (``plugin.kvm.conversation.recorder``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from plugin.cpuid import Leaf, Registers
from plugin.kvm.conversation.recorder import SCHEMA
from qmp_client.errors import UsageError


class Head(msgspec.Struct):
    """The first line: who talked, and to what."""

    schema: str
    argv: list[str]
    module: str
    platform: str
    interface: str


class Call(msgspec.Struct, rename={"said": "in"}):
    """One call that the VMM saw answered."""

    n: int
    on: str
    """The file: ``system-0``, ``vm-0``, ``vcpu-0``; ``/dev/kvm`` for an open."""
    call: str
    said: dict[str, Any] = {}
    out: dict[str, Any] = {}
    result: int | None = None
    new: str = ""
    """The file that the call made."""
    errno: str = ""
    why: str = ""
    waits: bool = False

    @property
    def command(self) -> str:
        """The call's name, or the TDX sub-command's."""
        return str(self.said.get("command", self.call))


class Talk(msgspec.Struct):
    """A whole conversation."""

    head: Head
    calls: list[Call]
    cut: bool = False
    """Whether the last line is not whole: the simulation was killed while it wrote."""


def read(path: Path) -> Talk:
    """Read a conversation. Raises UsageError that names the line that is none."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"the conversation {path} cannot be read: {error.strerror}") from error
    hint = "tdx-cpuid sim --record FILE -- COMMAND writes one"
    try:
        head = msgspec.json.decode(lines[0] if lines else b"", type=Head)
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} is not a recorded conversation: {error}", hint=hint) from error
    if head.schema != SCHEMA:
        raise UsageError(f"{path} has the schema {head.schema}; this version reads {SCHEMA}")
    talk = Talk(head, [])
    for number, line in enumerate(lines[1:], start=2):
        try:
            talk.calls.append(msgspec.json.decode(line, type=Call))
        except msgspec.DecodeError as error:
            if number < len(lines):
                raise UsageError(f"{path}, line {number} is not a call: {error}", hint=hint) from error
            talk.cut = True
    return talk


def cpuid(said: dict[str, Any]) -> dict[Leaf, Registers]:
    """The CPUID entries of a call; an index counts even where KVM does not flag it."""
    return {
        Leaf(entry["leaf"], entry.get("subleaf", entry.get("index"))): Registers(
            entry["eax"], entry["ebx"], entry["ecx"], entry["edx"]
        )
        for entry in said.get("entries", ())
    }
