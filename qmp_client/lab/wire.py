"""What crosses the broker: one type a message, each with a schema version. Sizes are bounded on both ends."""

from __future__ import annotations

from enum import StrEnum
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from plugin.tdx_module.guests import DEFAULT_GUEST
from qmp_client.boot.model import Booted
from qmp_client.report.model import Report

JOB_LIMIT = 8 << 10
"""Bytes of the largest job that is looked at."""
RESULT_LIMIT = 16 << 20
"""Bytes of the largest message that a client looks at."""
RESPONSE_LIMIT = 128
"""Bytes of correlation data that an agent stores and sends back."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)"
NAME_OR_NONE = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$(?!\n)"
CPU = r"^[A-Za-z0-9][A-Za-z0-9._-]*(,[+-]?[A-Za-z0-9][A-Za-z0-9._-]*(=(on|off))?)*$(?!\n)"

Name = Annotated[str, Meta(pattern=NAME, description="Letters, digits, dot, dash and underscore; part of topics.")]
NameOrNone = Annotated[str, Meta(pattern=NAME_OR_NONE, description="One of the agent's list, or its first.")]
GUEST = r"^[a-z0-9.,=+-]{1,256}$(?!\n)"
Guest = Annotated[str, Meta(pattern=GUEST, description="Who executes CPUID: a name or controls, as --guest has it.")]
Cpu = Annotated[str, Meta(pattern=CPU, max_length=2048, description="QEMU's -cpu: a model, then features on or off.")]
Seconds = Annotated[float, Meta(ge=0)]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What all messages have in common: a field that nobody knows is an error."""


class Boot(Message, frozen=True, kw_only=True):
    """Start the guest from a disk, too, and wait until it is up: until all that is named here has come."""

    disk: NameOrNone = ""
    pattern: Annotated[str, Meta(max_length=256)] = ""
    """A regular expression (Python's) that one line of the serial console has to match."""
    guest_agent: bool = False
    """Whether the guest's QEMU agent has to answer."""
    seconds: Annotated[float, Meta(gt=0)] | None = None
    """For the guest to be up, from its first instruction; not more than the host allows, which is the default."""


class Job(Message, frozen=True, kw_only=True, tag_field="schema", tag="tdx-cpuid/lab/job/1"):
    """One TD to negotiate. An empty name means: the first one in the agent's list."""

    id: Name
    cpu: Cpu = "host"
    vcpus: Annotated[int, Meta(ge=1, le=4096)] = 1
    choose: Literal["model", "maximal", "minimal"] = "model"
    """How the configurable bits are chosen."""
    guest: Guest = DEFAULT_GUEST
    qemu: NameOrNone = ""
    machine: NameOrNone = ""
    module: NameOrNone = ""
    platform: NameOrNone = ""
    options: Annotated[tuple[Name, ...], Meta(max_length=16, description="Names of options in the agent's file.")] = ()
    boot: Boot | None = None


class Versions(Message, frozen=True, kw_only=True):
    """Everything on a host that can change what a guest sees."""

    module: str
    """The TDX module; empty where the host does not tell."""
    microcode: str
    kernel: str
    qemu: str
    firmware: str
    """The first 16 hexadecimal digits of the image's SHA-256."""
    platform: str
    """The processor, or the simulated one."""


class State(StrEnum):
    """How far a job is."""

    ACCEPTED = "accepted"
    """Stored: from here on it ends in a result."""
    RUNNING = "running"
    DONE = "done"


class Outcome(StrEnum):
    """How a job ended."""

    MEASURED = "measured"
    FAILED = "failed"


class Progress(Message, frozen=True, kw_only=True, tag_field="schema", tag="tdx-cpuid/lab/progress/1"):
    """A step of a job."""

    job: Name
    host: Name
    pool: Name
    cpu: str
    state: State
    outcome: Outcome | None = None
    reason: str = ""


class Result(Message, frozen=True, kw_only=True, tag_field="schema", tag="tdx-cpuid/lab/result/1"):
    """What became of an accepted job. There is one for each, however often it is delivered."""

    job: Name
    host: Name
    pool: Name
    outcome: Outcome
    seconds: Seconds
    at: float
    """When it ended, in seconds since 1970 by the host's clock. For people: nothing is ordered by it."""
    reason: str = ""
    """Why it failed."""
    kvm: Literal["simulated", "hardware"]
    versions: Versions | None = None
    report: Report | None = None
    boot: Booted | None = None


class Rejection(Message, frozen=True, kw_only=True, tag_field="schema", tag="tdx-cpuid/lab/rejection/1"):
    """Why a message was not accepted as a job."""

    host: Name
    job: str = ""
    """The job's id, where it could be read."""
    digest: str
    """SHA-256 of the payload, to tell which message it was."""
    reason: str


class Status(Message, frozen=True, kw_only=True, tag_field="schema", tag="tdx-cpuid/lab/status/1"):
    """Whether an agent is there."""

    host: Name
    pool: Name
    state: Literal["online", "draining", "drained", "offline"]
    running: int = 0
    waiting: int = 0
    """Jobs that were accepted and have not begun."""


class Capabilities(Message, frozen=True, kw_only=True, tag_field="schema", tag="tdx-cpuid/lab/capabilities/1"):
    """What a job may choose on this host."""

    host: Name
    pool: Name
    kvm: Literal["simulated", "hardware"]
    qemu: tuple[str, ...]
    machines: tuple[str, ...]
    cpu_models: tuple[str, ...]
    """Shell patterns."""
    modules: tuple[str, ...]
    platforms: tuple[str, ...]
    options: tuple[str, ...]
    disks: tuple[str, ...] = ()
    """Empty where no guests are booted."""
    jobs_at_once: int
    max_vcpus: int


class Drain(Message, frozen=True, kw_only=True, tag_field="schema", tag="tdx-cpuid/lab/drain/1"):
    """An operator's wish: no more jobs of the pool for this host, or jobs again."""

    drain: bool


class Delivered(Message, frozen=True, kw_only=True, tag_field="schema", tag="tdx-cpuid/lab/delivered/1"):
    """An agent's note: the broker has taken everything up to this number of the agent's outbox."""

    through: int
    store: Annotated[int, Meta(ge=0)] = 0
    """Which state file the agent has, so that two agents of one name are noticed; 0: not told."""
    probe: str = ""
    """Not empty: no note, but the agent's way to see whether the broker has one."""


class Change(Message, frozen=True, kw_only=True):
    """One field of the guest's CPUID that is not what it was; a field that is not there is 0."""

    field: str
    """Where, as in ``0x7.0.ebx[16]``."""
    name: str
    before: int
    now: int


class Drift(Message, frozen=True, kw_only=True, tag_field="schema", tag="tdx-cpuid/lab/drift/1"):
    """Guests of a host see another CPUID than when it was last measured."""

    host: Name
    pool: Name
    cpu: str
    kvm: Literal["simulated", "hardware"]
    job: Name
    """The measurement that showed it."""
    at: float
    likely: str
    """The likely reason, in a sentence."""
    moved: tuple[str, ...]
    """Which of the versions moved, the likeliest first."""
    before: Versions
    now: Versions
    changes: tuple[Change, ...]


MESSAGES: tuple[type[Message], ...] = (
    Job,
    Progress,
    Result,
    Rejection,
    Status,
    Capabilities,
    Drain,
    Delivered,
    Drift,
)
"""Every message, for the published schemas."""


_DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(cast("Any", reduce(or_, MESSAGES)))


def decode(payload: bytes) -> Message:
    """Whichever message it is. Raises msgspec.DecodeError, UnicodeDecodeError, RecursionError for what is none."""
    return _DECODER.decode(payload)


def encode(message: Message) -> bytes:
    """The payload."""
    return msgspec.json.encode(message)


def schema_of(message: type[Message]) -> str:
    """The schema's name with its version; also sent as the user property ``schema``."""
    return str(message.__struct_config__.tag)
