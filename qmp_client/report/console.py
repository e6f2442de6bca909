"""Where everything for people is printed: colours on a terminal, plain and wide lines elsewhere."""

from __future__ import annotations

from typing import IO, Any, NoReturn, TextIO, cast

from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 160
"""Columns when the output is not a terminal: wide enough that no cell is wrapped."""

WIDEST_TABLE = 1000


class _Console(Console):
    """Takes text as it is: a bracket in a user's own words is no markup."""

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the program: an exit status of 1 would say that a policy was not met."""
        raise BrokenPipeError


class _Unpadded:
    """A stream that leaves out the blanks at the end of a line, which only pad the last column."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """Write lines; each of the console's writes is made of whole ones."""
        return self._out.write("\n".join(line.rstrip(" ") for line in text.split("\n")))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)


def fits(table: Table, console: Console, *, unwrapped: bool = False) -> bool:
    """Whether every column of a table has room; one that has none would be cut off, or lost.

    A column may break between words, unless ``unwrapped``.
    """
    needed = Measurement.get(console, console.options.update(max_width=WIDEST_TABLE), table)
    return (needed.maximum if unwrapped else needed.minimum) <= console.width


def entry(title: Text, said: Text, console: Console) -> None:
    """Print what a row of a table says where the table has no room: a title, and the rest below it."""
    console.print(title)
    console.print(Padding(said, (0, 0, 0, 4)))


def many(number: int, what: str) -> str:
    """A number of things: ``1 cell``, ``2 cells``."""
    return f"{number} {what}{'s' if number != 1 else ''}"


def console_for(out: TextIO) -> Console:
    """The console for a stream: colours and its own width on a terminal, plain and wide elsewhere."""
    if out.isatty():
        return _Console(file=out, highlight=False, markup=False, emoji=False)
    plain = cast(IO[str], _Unpadded(out))
    return _Console(file=plain, highlight=False, markup=False, emoji=False, width=PLAIN_WIDTH, color_system=None)
