"""The diagnosis as a table."""

from __future__ import annotations

from typing import TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from qmp_client.doctor.finding import Diagnosis, Standing
from qmp_client.report.console import console_for

STYLES = {Standing.OK: "green", Standing.LIMITED: "yellow", Standing.MISSING: "red"}


def show(diagnosis: Diagnosis, out: TextIO) -> None:
    """Print one row a finding, what mends it below, and the conclusion."""
    console = console_for(out)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "what", "needed for", "found"):
        table.add_column(title, overflow="fold")
    for finding in diagnosis.findings:
        state = Text(finding.state.value, style=STYLES[finding.state])
        table.add_row(state, finding.what, ", ".join(finding.needed_for), finding.found)
    console.print(table)
    for finding in diagnosis.findings:
        if finding.state is not Standing.OK and finding.mend:
            console.print(f"{finding.what}: {finding.mend}")
    if diagnosis.able:
        console.print("negotiate works on this machine", style="bold green")
    else:
        console.print("negotiate does not work on this machine yet", style="bold red")
