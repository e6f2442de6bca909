"""``--format json``: everything, as data."""

from __future__ import annotations

from collections.abc import Sequence

from qmp_client import stdout
from qmp_client.report.model import Report
from qmp_client.report.policy import Criteria
from qmp_client.report.side_by_side import side_by_side


def put(reports: Sequence[Report], criteria: Criteria, *, everything: bool) -> None:
    """Print one report, or the comparison of two."""
    stdout.put_json(reports[0] if len(reports) == 1 else side_by_side(*reports))
