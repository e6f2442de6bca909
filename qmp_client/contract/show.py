"""A contract as text for people, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from qmp_client.contract.compare import Change, Contract, Difference, Guarantee
from qmp_client.contract.lines import Group, answered, groups, noteworthy
from qmp_client.report.console import console_for, many

MANY = 16
"""Names that a line gives before it only counts."""


def show(contract: Contract, out: TextIO, *, everything: bool = False) -> None:
    """Print the guarantees, what changed around the bits, and one line for bits of the same fate."""
    console = console_for(out)
    plain = not console.is_terminal
    console.print(title(contract), style="bold")
    for line in seen(contract):
        console.print(line, style="bold", soft_wrap=True)
    for guarantee, broken in _guarantees(contract):
        verdict = Text(f"{'BROKEN' if broken else 'kept':8}", style="red" if broken else "green")
        console.print(Text.assemble(verdict, f"{guarantee}{_count(broken)}"))
    for line in around(contract):
        console.print(line)
    shown = contract.changes if everything else noteworthy(contract.changes)
    if shown:
        table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        for name in ("", "before", "after"):
            table.add_column(name, no_wrap=True)
        table.add_column("bits", overflow="fold", ratio=1)
        for group in groups(shown):
            bits = _bits(group, everything=everything)
            table.add_row(Text(_marks(group), style="red"), group.before, group.after, Text(bits))
        console.print(table)
    for line in footer(contract, everything=everything):
        console.print(line)


def markdown(contract: Contract, *, everything: bool = False) -> str:
    """The same as a Markdown document."""
    lines = [f"## {title(contract)}", "", *(f"**{line}**\n" for line in seen(contract))]
    lines += ["| guarantee | |", "| --- | --- |"]
    lines += [f"| {guarantee} | {_verdict(broken)} |" for guarantee, broken in _guarantees(contract)]
    lines += ["", *(f"- {line}" for line in around(contract))]
    shown = contract.changes if everything else noteworthy(contract.changes)
    if shown:
        lines += ["", "| breaks | before | after | bits |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {_marks(group)} | {group.before} | {group.after} | {_bits(group, everything=everything)} |"
            for group in groups(shown)
        ]
    lines += ["", *footer(contract, everything=everything)]
    return "\n".join(lines).rstrip() + "\n"


def title(contract: Contract) -> str:
    """Say what is compared."""
    return f"TDX module {contract.old} -> {contract.new}, {contract.platform or 'any processor'}"


def seen(contract: Contract) -> Iterator[str]:
    """Say what a guest loses and gains: what every guest had, and what a VMM could show it."""
    sights = contract.sights
    for what, changes in (("no longer sees", sights.lost), ("can see now", sights.gained)):
        certain = [change.name for change in changes if change.certain]
        possible = [change.name for change in changes if not change.certain]
        said = [" ".join(certain)] if certain else []
        said += [f"{_joined(possible)} (where a VMM configures it)"] if possible else []
        if said:
            yield f"{sights.guest} {what}: {'; '.join(said)}"
    if sights.answered:
        yield f"{sights.guest} is answered by the module, without #VE: {' '.join(sights.answered)}"


def around(contract: Contract) -> Iterator[str]:
    """Say what changed besides the bits."""
    for name, difference in (
        ("ATTRIBUTES", contract.attributes),
        ("XFAM", contract.xfam),
        ("rules", contract.rules),
    ):
        if difference != Difference((), ()):
            gained = [f"+{word}" for word in difference.gained]
            yield f"{name}: {' '.join(gained + [f'-{word}' for word in difference.lost])}"


def footer(contract: Contract, *, everything: bool) -> Iterator[str]:
    """Say what the lines above do not: what is lost without a word, and what was left out."""
    leaves = answered(contract.changes)
    if leaves:
        yield f"Leaves that raised #VE and have a value now: {' '.join(leaves)}"
    lost = [change for change in contract.changes if change.off_unless_set]
    if lost:
        names = [change.name or str(change.bit) for change in lost]
        yield f"Off now for a VMM that does not set them: {_joined(names)}"
    critical = list(dict.fromkeys(change.name for change in contract.changes if change.critical))
    yield f"KVM relies on (marked !): {' '.join(critical) or 'none of the changed bits'}"
    models = sorted({model for change in contract.changes if change.breaks for model in change.models})
    if models:
        yield f"-cpu models that ask for a bit of a broken guarantee: {', '.join(models)}"
    hidden = 0 if everything else len(contract.changes) - len(noteworthy(contract.changes))
    yield f"{len(contract.changes)} bits changed" + (
        f"; {hidden} that break nothing left out (--all)" if hidden else ""
    )


def _guarantees(contract: Contract) -> Iterator[tuple[str, list[Change]]]:
    for number, guarantee in enumerate(Guarantee, start=1):
        yield f"{number} {guarantee.value}", contract.broken(guarantee)


def _count(broken: list[Change]) -> str:
    return f": {many(len(broken), 'bit')}" if broken else ""


def _verdict(broken: list[Change]) -> str:
    return f"**broken**{_count(broken)}" if broken else "kept"


def _marks(group: Group) -> str:
    """The numbers of the broken guarantees."""
    return ",".join(str(number) for number, guarantee in enumerate(Guarantee, start=1) if guarantee in group.breaks)


def _bits(group: Group, *, everything: bool) -> str:
    return f"{group.where}  {' '.join(group.names)}" if everything else _joined(group.names)


def _joined(names: list[str]) -> str:
    return " ".join(names) if len(names) <= MANY else f"{' '.join(names[: MANY - 1])} and {len(names) - MANY + 1} more"
