"""``--format html``: one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence

from qmp_client import stdout
from qmp_client.page import of_report, render
from qmp_client.report.model import Report
from qmp_client.report.policy import Criteria


def put(reports: Sequence[Report], criteria: Criteria, *, everything: bool) -> None:
    """Print the page of all reports."""
    stdout.put(render([of_report(report) for report in reports], criteria.policy).encode())
