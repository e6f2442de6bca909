"""A matrix in few rows: cells with the same outcome together, and which deviations there are most of. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from qmp_client.matrix.fold import Block, fold
from qmp_client.matrix.grid import varying
from qmp_client.matrix.result import Cell, Result
from qmp_client.reconcile.verdict import DEVIATIONS, Line
from qmp_client.report.policy import Policy


class Row(NamedTuple):
    """Cells with one outcome."""

    block: Block
    """The values of each axis in ``Digest.axes``."""
    result: Result
    """The first of them; the others have the same deviations."""
    failing: int
    """How many lines of it fail the policy."""
    cells: int


class Frequent(NamedTuple):
    """One deviation, and how many cells have it."""

    where: str
    name: str
    verdict: str
    cause: str
    """The most frequent cause."""
    cells: int


class Digest(NamedTuple):
    """What there is to say about a matrix."""

    axes: list[str]
    sizes: list[int]
    """How many values each axis has."""
    rows: list[Row]
    failed: list[Row]
    frequent: list[Frequent]
    as_expected: int
    unmet: int
    without_report: int


def digest(results: Sequence[Result], policy: Policy) -> Digest:
    """Fold the results; rows are in the order of the grid."""
    axes = varying([result.cell for result in results])
    groups: dict[object, list[Result]] = {}
    counted: Counter[tuple[str, str, str]] = Counter()
    causes: dict[tuple[str, str, str], Counter[str]] = {}
    for result in results:
        failing = _failing(result, policy)
        groups.setdefault(_outcome(result, failing), []).append(result)
        for line in {(line.where, line.name, line.verdict.value): line for line in failing}.values():
            key = line.where, line.name, line.verdict.value
            counted[key] += 1
            causes.setdefault(key, Counter())[line.cause] += 1
    rows = [row for group in groups.values() for row in _rows(group, axes, policy)]
    return Digest(
        axes=axes,
        sizes=[len({getattr(result.cell, axis) for result in results}) for axis in axes],
        rows=[row for row in rows if row.result.report is not None],
        failed=[row for row in rows if row.result.report is None],
        frequent=[Frequent(*key, causes[key].most_common(1)[0][0], cells) for key, cells in counted.most_common()],
        as_expected=sum(result.report is not None and not result.exit_code for result in results),
        unmet=sum(result.report is not None and bool(result.exit_code) for result in results),
        without_report=sum(result.report is None for result in results),
    )


def counts(result: Result) -> dict[str, int]:
    """How many lines there are for each kind of deviation."""
    return {} if result.report is None else {verdict.value: result.report.summary[verdict] for verdict in DEVIATIONS}


def _rows(group: Sequence[Result], axes: Sequence[str], policy: Policy) -> list[Row]:
    by_point = {_point(result.cell, axes): result for result in group}
    rows = []
    for block in fold(by_point):
        first = by_point[tuple(values[0] for values in block)]
        cells = 1
        for values in block:
            cells *= len(values)
        rows.append(Row(block, first, len(_failing(first, policy)), cells))
    return rows


def _point(cell: Cell, axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(getattr(cell, axis) for axis in axes)


def _failing(result: Result, policy: Policy) -> list[Line]:
    return [] if result.report is None else policy.failing(result.report.lines)


def _outcome(result: Result, failing: Sequence[Line]) -> object:
    """What two cells must share to stand in one row."""
    seen = tuple((line.where, line.verdict, line.got, line.guest) for line in failing)
    return result.error, tuple(counts(result).items()), seen
