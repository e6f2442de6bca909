"""What the simulated KVM wrote down about its run (``plugin.kvm.launch.supervise``, ``record_fd``)."""

from __future__ import annotations

import msgspec

from qmp_client.entries import Entry


class Interception(msgspec.Struct):
    """What became of the CPUID instructions that QEMU executes itself."""

    active: bool
    why_not: str = ""
    undecided: int = 0
    """Places that may be CPUID instructions and were left alone."""


class Asked(msgspec.Struct):
    """What KVM_TDX_INIT_VM was given."""

    attributes: int
    xfam: int
    cpuid: list[Entry]


class Td(msgspec.Struct, rename="kebab"):
    """One TD, as the simulated KVM initialised it. ATTRIBUTES and XFAM include what the module forces."""

    requested: Asked
    attributes: int
    xfam: int
    gpaw: int
    """Guest physical address width, which KVM keeps: 48 or 52."""
    vcpus: int
    cpuid_config: list[Entry]
    """What KVM gave TDH.MNG.INIT as CPUID_CONFIG."""
    kvm_filtered: list[Entry]
    """Bits that the module can configure and KVM does not let a VMM have."""
    kvm_copy: list[Entry]
    """What KVM took the CPUID of the first vCPU to be: it answers from there when the guest's CPUID raises #VE."""


class Refusal(msgspec.Struct):
    """TDX commands that KVM refused, one after another for the same reason."""

    errno: str
    why: str
    times: int
    overcome: bool
    """Whether QEMU went on: a later TDX command succeeded."""


class Record(msgspec.Struct):
    """The whole run; fields that only people read are left out."""

    cpuid: Interception
    warnings: list[str]
    tds: list[Td]
    faults: list[str] = []
    refused: list[Refusal] = []


def read(text: bytes) -> Record | None:
    """The record, or None when the simulation ended before it could write one."""
    return msgspec.json.decode(text, type=Record) if text else None


def caveats(record: Record) -> list[str]:
    """What the simulation could not do, so that the report cannot promise it; one sentence each."""
    said = list(record.warnings)
    said += [f"this fault was injected: {fault}" for fault in record.faults]
    if not record.cpuid.active:
        said.append(
            "QEMU's own CPUID instructions saw this machine's processor, so vendor, family, model, address widths and"
            f" cache leaves of -cpu host are not the simulated platform's: {record.cpuid.why_not}"
        )
    return list(dict.fromkeys(said))


def refusal(record: Record | None) -> str:
    """What KVM said last, when it was a no that QEMU did not get over: a sentence, else empty."""
    if record is None or not record.refused or record.refused[-1].overcome:
        return ""
    last = record.refused[-1]
    often = f" ({last.times} times in a row)" if last.times > 1 else ""
    return f"{last.errno}: {last.why}{often}"


def overcome(record: Record | None) -> list[str]:
    """Which refusals QEMU tried again after, because they pass: in a sentence each."""
    return [
        f"KVM refused {_times(refusal.times)} before it went on: {refusal.why}"
        for refusal in (record.refused if record else [])
        if refusal.overcome and refusal.errno == "EAGAIN"
    ]


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
