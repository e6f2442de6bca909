"""What a check found: on a terminal, as Markdown, and as JUnit XML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TextIO

from rich.table import Table

from qmp_client.baseline.compare import Group, Machine
from qmp_client.report.console import console_for, many
from qmp_client.report.junit import Case, Problem, Suite, one

MOST = 6
"""How many TDs one heading names."""


class Found(NamedTuple):
    """Everything that a check has to say."""

    name: str
    saved_with: str
    checked_with: str
    """QEMU's version then and now."""
    machines: list[Machine]
    failed: list[str]
    """TDs that could not be built: a sentence each."""
    notes: list[str]
    strict: bool

    def fails(self, machine: Machine) -> bool:
        """Whether this machine type's changes make the exit status 1."""
        return bool(machine.groups) and (machine.frozen or self.strict)

    @property
    def exit_code(self) -> int:
        """4 when a TD could not be built, 1 when something changed that must not."""
        return 4 if self.failed else int(any(map(self.fails, self.machines)))


def show(found: Found, out: TextIO) -> None:
    """Print the changes and a line for each machine type."""
    console = console_for(out)
    for machine in found.machines:
        colour = "bold red" if found.fails(machine) else "bold yellow" if machine.groups else "green"
        console.print(heading(found, machine), style=colour)
        for group in machine.groups:
            console.print(f"  {_who(group)}", soft_wrap=True)
            table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
            for change in group.changes:
                table.add_row("   ", change.where, change.name, change.before, "->", change.now)
            console.print(table)
    for sentence in found.failed:
        console.print(f"failed: {sentence}", style="red", soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(conclusion(found), soft_wrap=True, style="bold red" if found.exit_code else "bold green")


def heading(found: Found, machine: Machine) -> str:
    """What became of one machine type."""
    rule = "must never change" if machine.frozen else "may change"
    if not machine.groups:
        return f"{machine.name} ({rule}): unchanged, {many(machine.tds, 'TD')}"
    strict = ", but not with --strict" if found.strict and not machine.frozen else ""
    return f"{machine.name} ({rule}{strict}): {machine.changed} of {many(machine.tds, 'TD')} changed"


def conclusion(found: Found) -> str:
    """The last line."""
    total = sum(machine.tds for machine in found.machines)
    broken = [machine.name for machine in found.machines if found.fails(machine)]
    allowed = [machine.name for machine in found.machines if machine.groups and not found.fails(machine)]
    said = [f"{found.name}: {many(total, 'TD')} compared"]
    said += [f"{len(found.failed)} failed"] if found.failed else []
    said += [f"{', '.join(broken)} changed and must not"] if broken else []
    said += [f"{', '.join(allowed)} changed and may; tdx-cpuid baseline save takes it over"] if allowed else []
    said += ["nothing changed"] if not broken and not allowed else []
    return ", ".join(said)


def markdown(found: Found) -> str:
    """The same as Markdown, for a summary in CI."""
    return "\n".join(_markdown(found)) + "\n"


def junit(found: Found) -> bytes:
    """The same as JUnit XML: one case for each machine type, and one for each TD that failed."""
    group = f"baseline.{found.name}"
    cases = [_case(found, machine, group) for machine in found.machines]
    cases += [Case(group, sentence, Problem("error", sentence)) for sentence in found.failed]
    return one(Suite(f"tdx-cpuid baseline {found.name}", cases))


def _case(found: Found, machine: Machine, group: str) -> Case:
    text = "\n".join(_plain(machine))
    if found.fails(machine):
        return Case(group, machine.name, Problem("failure", heading(found, machine), text=text))
    return Case(group, machine.name, said=text)


def _markdown(found: Found) -> Iterator[str]:
    yield from (f"# tdx-cpuid baseline {found.name}", "", f"**{conclusion(found)}**", "")
    yield f"Saved with QEMU {found.saved_with}, checked with {found.checked_with or 'none'}."
    for machine in found.machines:
        yield from ("", f"## {'❌' if found.fails(machine) else '✅'} {heading(found, machine)}")
        if machine.groups:
            yield from ("", "```", *_plain(machine), "```")
    if found.failed:
        yield from ("", "## ❌ failed", "", *(f"* {sentence}" for sentence in found.failed))
    yield from (line for note in found.notes for line in ("", f"Note: {note}"))


def _plain(machine: Machine) -> Iterator[str]:
    for group in machine.groups:
        yield _who(group)
        yield from (f"    {c.where:<22} {c.name:<22} {c.before} -> {c.now}" for c in group.changes)


def _who(group: Group) -> str:
    """The TDs of a group; what they share is said once."""
    tds: Sequence[object] = group.tds
    if len({td[:-1] for td in group.tds}) == 1:
        first = group.tds[0]
        tds = [td.cpu for td in group.tds]
        return str(first._replace(cpu=_some(tds)))
    return _some([str(td) for td in group.tds])


def _some(words: Sequence[object]) -> str:
    named = [str(word) for word in words[:MOST]]
    return ", ".join(named) + (f" and {len(words) - MOST} more" if len(words) > MOST else "")
