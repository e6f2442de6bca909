"""The grid in words, for readers whose mail program runs no script. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qmp_client.page.shown import NoReport, Shown, Where
from qmp_client.report.policy import Policy


class Row(NamedTuple):
    """One TD."""

    where: Where
    failing: int
    error: str | None


def rows(tds: Sequence[Shown], policy: Policy) -> list[Row]:
    """One row for every TD."""
    return [
        Row(td.where, 0, td.became.why)
        if isinstance(td.became, NoReport)
        else Row(td.where, len(policy.failing(td.became.lines)), None)
        for td in tds
    ]
