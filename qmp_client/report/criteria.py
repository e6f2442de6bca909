"""From ``--fail-on`` and ``--expect`` to what a report is held against."""

from __future__ import annotations

from pathlib import Path

from qmp_client.report.model import load
from qmp_client.report.policy import DEFAULT, Criteria, parse


def criteria_of(fail_on: str | None, expect: Path | None = None) -> Criteria:
    """Read both. Raises UsageError for words that are no verdicts, and for a file that is no saved report."""
    policy = parse(DEFAULT if fail_on is None else fail_on)
    if expect is None:
        return Criteria(policy)
    expected = load(expect)
    return Criteria(policy, expected.lines, expected.environment)
