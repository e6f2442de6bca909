"""Reading what ``tdx-cpuid sim --record FILE`` wrote (``plugin.kvm.conversation.recorder``)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from plugin import strict_json
from plugin.cpuid import Leaf, Registers
from plugin.kvm.conversation.recorder import SCHEMA
from qmp_client import given
from qmp_client.errors import UsageError

LIMIT = 256 << 20
"""Bytes of the longest conversation that is read."""
U32 = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
U64 = Annotated[int, Meta(ge=0)]
"""The document's own bound is 64 bits."""


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


class Entry(msgspec.Struct):
    """One CPUID entry of a call; an index counts even where KVM does not flag it."""

    leaf: U32
    eax: U32
    ebx: U32
    ecx: U32
    edx: U32
    subleaf: U32 | None = None
    index: U32 | None = None


class Entries(msgspec.Struct):
    """What a call says or tells of CPUID: nothing, where it could not be read from the caller's memory."""

    entries: list[Entry] = []


class Chosen(msgspec.Struct):
    """What KVM_TDX_INIT_VM was given besides; None where it could not be read."""

    attributes: U64 | None = None
    xfam: U64 | None = None


SAYS_CPUID = ("KVM_TDX_INIT_VM", "KVM_SET_CPUID2")
TELLS_CPUID = ("KVM_TDX_CAPABILITIES", "KVM_TDX_GET_CONFIG_CPUID", "KVM_TDX_GET_CPUID", "KVM_TDX_INIT_VCPU_CPUID")


class Talk(msgspec.Struct):
    """A whole conversation."""

    head: Head
    calls: list[Call]
    cut: bool = False
    """Whether the last line is not whole: the simulation was killed while it wrote."""


def read(path: Path) -> Talk:
    """Read a conversation. Raises UsageError that names the line that is none."""
    lines = given.content("the conversation", path, LIMIT).splitlines()
    hint = "tdx-cpuid sim --record FILE -- COMMAND writes one"
    try:
        head = msgspec.convert(strict_json.from_json(lines[0] if lines else b""), Head)
    except (strict_json.NotJson, msgspec.ValidationError) as error:
        raise UsageError(f"{path} is not a recorded conversation: {error}", hint=hint) from error
    if head.schema != SCHEMA:
        raise UsageError(f"{path} has the schema {head.schema}; this version reads {SCHEMA}")
    talk = Talk(head, [])
    for number, line in enumerate(lines[1:], start=2):
        try:
            talk.calls.append(_call(line))
        except (strict_json.NotJson, msgspec.ValidationError) as error:
            if number < len(lines):
                raise UsageError(f"{path}, line {number} is not a call: {error}", hint=hint) from error
            talk.cut = True
    return talk


def _call(line: bytes) -> Call:
    """Read a line, and look at all in it that a verdict is made of. Raises NotJson, ValidationError."""
    call = msgspec.convert(strict_json.from_json(line), Call)
    if call.command in SAYS_CPUID:
        cpuid(call.said)
        chosen(call)
    if call.command in TELLS_CPUID:
        cpuid(call.out)
    return call


def chosen(call: Call) -> Chosen:
    """ATTRIBUTES and XFAM of a KVM_TDX_INIT_VM. Raises ValidationError, but not for a call that `read` let through."""
    return msgspec.convert(call.said, Chosen)


def cpuid(said: dict[str, Any]) -> dict[Leaf, Registers]:
    """The CPUID entries of a call. Raises ValidationError, but not for a call that `read` let through."""
    return {
        Leaf(one.leaf, one.index if one.subleaf is None else one.subleaf): Registers(one.eax, one.ebx, one.ecx, one.edx)
        for one in msgspec.convert(said, Entries).entries
    }
