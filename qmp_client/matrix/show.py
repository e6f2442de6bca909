"""A matrix for people: on a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from qmp_client.matrix.digest import Digest, Row, counts, digest
from qmp_client.matrix.fold import say
from qmp_client.matrix.run import MatrixResult
from qmp_client.reconcile.verdict import DEVIATIONS, Verdict
from qmp_client.report.console import console_for, entry, fits, many
from qmp_client.report.policy import Policy
from qmp_client.report.table import STYLES

WIDEST = 30
"""Columns of the terminal that the longest value of an axis may take before it is broken."""
MOST_FREQUENT = 12
"""How many deviations the list of the most frequent ones has."""


def show(outcome: MatrixResult, policy: Policy, out: TextIO) -> None:
    """Print the summary: cells by outcome, the most frequent deviations, what failed, and the count."""
    console = console_for(out)
    found = digest(outcome.results, policy)
    kinds = _kinds(found)
    if found.rows:
        table = _table(found, plain=not console.is_terminal)
        for title in ("fail", *(kind.value for kind in kinds)):  # a narrow terminal cuts off what comes last
            narrow = title.replace("-", "-\n") if console.is_terminal else title
            table.add_column(narrow, justify="right", no_wrap=True)
        for row in found.rows:
            numbers = [
                Text(number, style=STYLES[kind]) for kind, number in zip(kinds, _numbers(row, kinds), strict=True)
            ]
            failing = Text(f"{row.failing}*" if row.failing else "0", style="red" if row.failing else "green")
            table.add_row(*_axes(row, found), failing, *numbers)
        console.print(table)
    if found.frequent:
        console.print("what fails most:", style="bold")
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
        for one in found.frequent[:MOST_FREQUENT]:
            table.add_row(many(one.cells, "cell"), one.where, one.name, one.verdict, one.cause)
        if fits(table, console, unwrapped=True):
            console.print(table)
        else:
            for one in found.frequent[:MOST_FREQUENT]:
                place = Text(f"  {many(one.cells, 'cell')}: {one.where} {one.name}")
                entry(place, Text(f"{one.verdict}, {one.cause}"), console)
        if len(found.frequent) > MOST_FREQUENT:
            console.print(f"  and {len(found.frequent) - MOST_FREQUENT} more")
    for row in found.failed:
        where = " · ".join(_axes(row, found))
        console.print(f"failed: {where}: {row.result.error}", style="red", soft_wrap=True)
    console.print(conclusion(outcome, found), style="bold red" if outcome.exit_code else "bold green")


def conclusion(outcome: MatrixResult, found: Digest) -> str:
    """The last line."""
    known = len(outcome.results) - outcome.ran
    speed = ""
    if outcome.ran:
        speed = f", {outcome.ran / outcome.seconds * 60:.0f} cells a minute, {many(outcome.workers, outcome.called)}"
    return (
        f"{many(len(outcome.results), 'cell')}: {found.as_expected} as expected, {found.unmet} not, "
        f"{found.without_report} failed; {f'{known} known already, ' if known else ''}{outcome.seconds:.1f} s{speed}"
    )


def markdown(outcome: MatrixResult, policy: Policy) -> str:
    """The same as Markdown, with every deviation that fails the policy."""
    return "\n".join(_markdown(outcome, policy)) + "\n"


def _markdown(outcome: MatrixResult, policy: Policy) -> Iterator[str]:
    found = digest(outcome.results, policy)
    kinds = _kinds(found)
    yield "# tdx-cpuid matrix"
    yield ""
    yield f"**{conclusion(outcome, found)}**"
    if found.rows:
        yield ""
        yield _line([*found.axes, "fail", *(kind.value for kind in kinds)])
        yield _line(["---"] * len(found.axes) + ["---:"] * (len(kinds) + 1))
        for row in found.rows:
            failing = f"**{row.failing}**" if row.failing else "0"
            yield _line([*_axes(row, found), failing, *_numbers(row, kinds)])
    if found.failed:
        yield from ("", "## Failed cells", "", _line([*found.axes, "why"]), _line(["---"] * (len(found.axes) + 1)))
        for row in found.failed:
            yield _line([*_axes(row, found), row.result.error or ""])
    if found.frequent:
        yield from ("", "## What fails the policy", "", _line(["cells", "bits", "name", "verdict", "cause"]))
        yield _line(["---:", "---", "---", "---", "---"])
        for one in found.frequent:
            yield _line([str(one.cells), one.where, one.name, one.verdict, one.cause])


def _line(cells: Sequence[str]) -> str:
    safe = (cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(safe)} |"


def _table(found: Digest, *, plain: bool) -> Table:
    """The columns of the axes: wide enough that no value is broken, while a row's values may stand under each other."""
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2 if plain else 1, 0, 0))
    for place, axis in enumerate(found.axes):
        longest = max(len(_short(axis, value)) for row in found.rows for value in row.block[place])
        table.add_column(axis, overflow="fold", min_width=min(longest, WIDEST) + 1)
    return table


def _kinds(found: Digest) -> list[Verdict]:
    """The deviations that occur, and always those that the default policy fails on."""
    always = (Verdict.FORCED_OFF, Verdict.ALTERED, Verdict.UNASKED)
    return [kind for kind in DEVIATIONS if kind in always or any(counts(row.result)[kind] for row in found.rows)]


def _numbers(row: Row, kinds: Sequence[Verdict]) -> list[str]:
    return [str(counts(row.result)[kind]) for kind in kinds]


def _axes(row: Row, found: Digest) -> list[str]:
    return [
        say([_short(axis, value) for value in values], size)
        for axis, values, size in zip(found.axes, row.block, found.sizes, strict=True)
    ]


def _short(axis: str, value: str) -> str:
    """A QEMU by the last three parts of its path, which tell builds apart; all else as it is."""
    return str(PurePath(*PurePath(value).parts[-3:])) if axis == "qemu" else value
