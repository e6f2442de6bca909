"""The report as data: what ``--format json`` prints, ``--expect`` reads, and the table is drawn from."""

from __future__ import annotations

from pathlib import Path

import msgspec

from plugin.tdx_module.guests import TD
from qmp_client import given
from qmp_client.entries import Entry, GuestEntry
from qmp_client.errors import UsageError
from qmp_client.reconcile.verdict import Line

SCHEMA = "tdx-cpuid/report/1"


class Request(msgspec.Struct, rename="kebab"):
    """What the user asked for."""

    cpu: str
    """QEMU's ``-cpu``."""
    smp: str
    machine: str
    choose: str
    """How the configurable bits were chosen: a policy's name, or the file's."""
    guest: str = TD.name
    """Who executes CPUID in the TD: a name or controls, as ``--guest`` takes them."""

    def __str__(self) -> str:
        return f"qemu-system-x86_64 -cpu {self.cpu} -smp {self.smp} -machine {self.machine}"


class Environment(msgspec.Struct, rename="kebab"):
    """What decided, and what therefore can be promised."""

    qemu: str
    qemu_version: str
    kvm: str
    """``simulated``, ``/dev/kvm``, or ``not observed`` where QEMU ran before."""
    interface: str
    """``upstream`` or ``proposal``: which calls QEMU found in KVM."""
    module: str | None = None
    platform: str | None = None
    caveats: list[str] = []
    """What this report cannot promise, and why."""


class Choice(msgspec.Struct):
    """What KVM_TDX_INIT_VM was given (64 bits each), and the configurable leaves."""

    attributes: int
    xfam: int
    cpuid: list[Entry]


class Report(msgspec.Struct, rename="kebab"):
    """One negotiated TD."""

    request: Request
    environment: Environment
    configurable: list[Entry]
    """Masks of what KVM let userspace choose."""
    choice: Choice
    vcpus: int
    """How many there are; the first one stands for all, except in lines that name another."""
    summary: dict[str, int]
    """Fields asked for, and fields per verdict."""
    lines: list[Line]
    notes: list[str] = []
    """What a reader should know about the choice, in sentences."""
    actual: list[Entry] = []
    """The CPUID of the first vCPU, as it was read from the TD."""
    guest: list[GuestEntry] = []
    """What the CPUID instruction answers in the guest, every leaf; fields that depend on the moment or the vCPU are as
    the TD holds them."""
    kvm_copy: list[Entry] = []
    """What KVM took that vCPU's CPUID to be; only a simulated KVM tells."""
    schema: str = SCHEMA


def load(path: Path) -> Report:
    """Read a saved report. Raises UsageError when the file is not one."""
    hint = "tdx-cpuid negotiate --format json writes one"
    value = given.json("the saved report", path, "a saved report", hint)
    try:
        report = msgspec.convert(value, Report)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path} is not a saved report: {error}", hint=hint) from error
    if report.schema != SCHEMA:
        raise UsageError(f"{path} has the schema {report.schema}; this version reads {SCHEMA}")
    return report
