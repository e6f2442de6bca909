"""What the doctor says: one finding for each thing that some command needs."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

SCHEMA = "tdx-cpuid/doctor/1"

MAIN_JOB = "negotiate"
"""The command without which the tool is of no use on a machine; it runs on a simulated KVM."""


class Standing(StrEnum):
    """How one thing stands."""

    OK = "ok"
    LIMITED = "limited"
    """There, but something is lost without more."""
    MISSING = "missing"


class Finding(msgspec.Struct, rename="kebab"):
    """One thing that was looked for."""

    what: str
    needed_for: list[str]
    """The commands and scripts that need it."""
    state: Standing
    found: str
    """What is there, or in which way it is missing."""
    mend: str = ""
    """The command that mends it; empty where nothing has to be mended."""


class Diagnosis(msgspec.Struct, rename="kebab"):
    """All findings of one machine."""

    findings: list[Finding]
    able: bool
    """Whether the main job can be done here."""
    schema: str = SCHEMA


def diagnose(findings: Iterable[Finding]) -> Diagnosis:
    """Draw the conclusion: the main job can be done when nothing that it needs is missing. Pure."""
    listed = list(findings)
    lacking = [finding for finding in listed if finding.state is Standing.MISSING and MAIN_JOB in finding.needed_for]
    return Diagnosis(listed, not lacking)
