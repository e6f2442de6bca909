"""How far a matrix has come: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol, TextIO

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from qmp_client.matrix.result import Cell, Result
from qmp_client.report.console import console_for, many

REPORTS = 10
"""How many plain lines a run has, beside those of failed cells."""


class Progress(Protocol):
    """What is told about a run while it goes on."""

    def __enter__(self) -> Progress: ...
    def __exit__(self, *_: object) -> None: ...
    def begin(self, total: int, known: Iterable[Result]) -> None:
        """Say how many cells there are, and which results are there before anything runs."""

    def step(self, result: Result | None) -> None:
        """Take a result, or only the passing of time."""


def progress_on(stream: TextIO) -> Progress:
    """The progress display for a stream."""
    return LiveLine(stream) if stream.isatty() else PlainLines(stream)


class Tally:
    """How many cells are done, have failed and are left, and how long that will take."""

    def __init__(self, total: int, known: Iterable[Result]) -> None:
        self.total = total
        self.started = time.monotonic()
        self.done = self.failed = self.unmet = 0
        for result in known:
            self.add(result)
        self.known = self.done

    def add(self, result: Result) -> None:
        """Count one result."""
        self.done += 1
        self.failed += result.report is None
        self.unmet += result.report is not None and result.exit_code != 0

    @property
    def left(self) -> int:
        """How many cells have no result yet."""
        return self.total - self.done

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take, by what was run so far; None before that is known."""
        ran = self.done - self.known
        return (time.monotonic() - self.started) / ran * self.left if ran else None

    def __str__(self) -> str:
        seconds = self.seconds_left
        to_go = "" if seconds is None or not self.left else f", {clock(seconds)} to go"
        unmet = f" ({self.unmet} not as expected)" if self.unmet else ""
        return f"{self.done} done{unmet}, {self.failed} failed, {self.left} left{to_go}"


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


def name(cell: Cell) -> str:
    """A cell in a line."""
    return f"{cell.cpu} on {cell.machine} (smp {cell.smp}, module {cell.module}, {cell.platform}, {cell.kvm})"


class PlainLines:
    """A line for each failed cell and each tenth of the way."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tally = Tally(0, ())

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, total: int, known: Iterable[Result]) -> None:
        """Say how many cells there are."""
        self._tally = Tally(total, known)
        before = f", {self._tally.known} of them known already" if self._tally.known else ""
        self._say(f"{many(total, 'cell')}{before}")

    def step(self, result: Result | None) -> None:
        """Say what failed, and how far the run is."""
        if result is None:
            return
        before = self._tally.done * REPORTS // self._tally.total
        self._tally.add(result)
        if result.error is not None:
            self._say(f"failed: {name(result.cell)}: {result.error}")
        if self._tally.done * REPORTS // self._tally.total > before:
            self._say(str(self._tally))

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class LiveLine:
    """A bar that is drawn anew; failed cells scroll by above it. No thread draws it: workers are forked meanwhile."""

    def __init__(self, stream: TextIO) -> None:
        self._bar = Bar(
            BarColumn(bar_width=30),
            TextColumn("{task.fields[said]}"),
            console=console_for(stream),
            auto_refresh=False,
            transient=True,
        )
        self._tally = Tally(0, ())

    def __enter__(self) -> LiveLine:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, total: int, known: Iterable[Result]) -> None:
        """Draw the bar with what is known already."""
        self._tally = Tally(total, known)
        self._task = self._bar.add_task("", total=total, completed=self._tally.done, said=str(self._tally))
        self._bar.refresh()

    def step(self, result: Result | None) -> None:
        """Draw the bar anew."""
        if result is not None:
            self._tally.add(result)
            if result.error is not None:
                self._bar.console.print(f"failed: {name(result.cell)}: {result.error}", style="red")
        self._bar.update(self._task, completed=self._tally.done, said=str(self._tally))
        self._bar.refresh()
