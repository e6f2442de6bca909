"""One cell of a matrix and what became of it. A file of results has one as JSON on each line."""

from __future__ import annotations

import msgspec

from qmp_client.report.model import Report


class Cell(msgspec.Struct, frozen=True, rename="kebab"):
    """What is negotiated: one TD, by everything that decides its CPUID."""

    cpu: str
    """QEMU's ``-cpu``."""
    machine: str
    """QEMU's machine type."""
    module: str
    """The TDX module version that is simulated."""
    platform: str
    qemu: str
    """The path of the QEMU binary."""
    smp: str = "1"
    """QEMU's ``-smp``."""
    kvm: str = "upstream"
    """The interface that KVM offers: ``upstream`` or ``proposal``."""


class Result(msgspec.Struct, frozen=True, rename="kebab"):
    """What became of one cell: a report, or the reason why there is none."""

    cell: Cell
    seconds: float
    """From the start of QEMU to its end."""
    report: Report | None
    error: str | None
    """Why there is no report, as ``negotiate`` would have said it, with the hint in brackets."""
    exit_code: int
    """As of ``negotiate``: 0 as the policy wants it, 1 not so; 2, 3, 4 where there is no report."""
    inputs: str = ""
    """What the result depends on, hashed: the cell, the QEMU binary's identity, firmware, choice and policy."""
