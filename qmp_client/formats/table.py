"""``--format table``: for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qmp_client.report import side_by_side
from qmp_client.report.console import console_for
from qmp_client.report.model import Report
from qmp_client.report.policy import Criteria
from qmp_client.report.table import show


def put(reports: Sequence[Report], criteria: Criteria, *, everything: bool) -> None:
    """Print the deviations of one report, or ``everything`` of it; or what lies between two."""
    if len(reports) == 1:
        show(reports[0], criteria, console_for(sys.stdout), everything=everything)
    else:
        side_by_side.show(side_by_side.side_by_side(*reports), console_for(sys.stdout))
