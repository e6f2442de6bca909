"""What became of a dump that was held against a prediction, for people and as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TextIO

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from plugin.cpuid import Registers
from qmp_client.observed.compare import Causes, Finding, Predicted, Result, count
from qmp_client.report.console import console_for, many
from qmp_client.report.model import Environment, Report, Request

SCHEMA = "tdx-cpuid/check-guest/1"
STYLES = {
    Result.CONTRADICTS: "bold red",
    Result.EXPLAINED: "yellow",
    Result.OTHER_CHOICE: "cyan",
    Result.AGREES: "green",
    Result.NO_EVIDENCE: "dim",
}
TOLD = (Result.CONTRADICTS, Result.EXPLAINED, Result.OTHER_CHOICE)
"""What is shown in any case."""
ORDER = (*TOLD, Result.NO_EVIDENCE, Result.AGREES)


class Document(msgspec.Struct, rename="kebab"):
    """A check as JSON."""

    dump: str
    request: Request
    environment: Environment
    summary: dict[str, int]
    findings: list[Finding]
    notes: list[str]
    schema: str = SCHEMA


class Check(NamedTuple):
    """A dump, what was predicted, and what lies between."""

    dump: str
    report: Report
    findings: Sequence[Finding]

    @property
    def exit_code(self) -> int:
        """1 when something contradicts that nothing explains."""
        return int(any(finding.result is Result.CONTRADICTS for finding in self.findings))

    def as_data(self) -> Document:
        """The same as a document."""
        report = self.report
        return Document(
            self.dump, report.request, report.environment, count(self.findings), list(self.findings), report.notes
        )


def predicted_by(report: Report) -> Predicted:
    """What the guest's code finds, by a report."""
    return {
        (one.leaf, one.subleaf or 0): None
        if one.eax is None
        else Registers(one.eax, one.ebx or 0, one.ecx or 0, one.edx or 0)
        for one in report.guest
    }


def causes_of(report: Report) -> Causes:
    """Who decided what is predicted, by the place of a field."""
    return {line.where: line.cause for line in report.lines}


def show(check: Check, out: TextIO, *, everything: bool = False) -> None:
    """Print what contradicts and what explains it, and with ``everything`` the rest."""
    console = console_for(out)
    environment, request = check.report.environment, check.report.request
    console.print(
        f"{check.dump}, against -cpu {request.cpu} on TDX module {environment.module}, {environment.platform},"
        f" as {request.guest} sees it",
        style="bold",
        soft_wrap=True,
    )
    shown = [
        finding
        for result in ORDER
        for finding in check.findings
        if finding.result is result and (everything or result in TOLD)
    ]
    if shown:
        table = Table(box=None if not console.is_terminal else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("", "name", "where", "predicted", "observed"):
            table.add_column(title, no_wrap=True)
        table.add_column("why", overflow="fold")
        for finding in shown:
            result = Text(finding.result.value, style=STYLES[finding.result])
            said = "; ".join(filter(None, (finding.why, finding.cause and f"predicted: {finding.cause}")))
            table.add_row(result, finding.name, finding.where, finding.predicted, finding.observed, said)
        console.print(table)
    for note in check.report.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(_conclusion(check), style="bold red" if check.exit_code else "bold green", soft_wrap=True)


def _conclusion(check: Check) -> str:
    counts = count(check.findings)
    said = [
        f"{counts[Result.AGREES]} agree",
        f"{counts[Result.CONTRADICTS]} contradict",
        f"{counts[Result.EXPLAINED]} differ for a known reason",
        f"{counts[Result.OTHER_CHOICE]} are another choice of the VMM",
        f"{counts[Result.NO_EVIDENCE]} cannot be told from this dump",
    ]
    return f"{many(len(check.findings), 'thing')} looked at: {', '.join(said)}"
