"""The report as a table for people: colours and lines on a terminal, plain columns elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from plugin.cpuid import Leaf
from plugin.cpuid.values import bits, say
from plugin.tdx_module import attribute_names, xfam_names
from qmp_client.reconcile.verdict import Line, Verdict
from qmp_client.report.console import entry, fits, many
from qmp_client.report.model import Report
from qmp_client.report.policy import Criteria, Policy, compare

STYLES = {
    Verdict.HONOURED: "green",
    Verdict.FORCED_ON: "yellow",
    Verdict.FORCED_OFF: "red",
    Verdict.ALTERED: "magenta",
    Verdict.UNASKED: "cyan",
    Verdict.UNREADABLE: "red",
    Verdict.DYNAMIC: "dim",
    Verdict.BY_HYPERCALL: "dim",
}


def show(report: Report, criteria: Criteria, console: Console, *, everything: bool = False) -> None:
    """Print the report: a header, the summary line, the deviations (or ``everything``), and the notes."""
    _header(report, console)
    show_lines(report.lines, criteria.policy, console, everything=everything)
    for note in report.notes:
        console.print(f"note: {note}")
    for caveat in report.environment.caveats:
        console.print(f"caveat: {caveat}", style="yellow")
    _conclusion(report, criteria, console)


def show_lines(lines: Sequence[Line], policy: Policy, console: Console, *, everything: bool = False) -> None:
    """Print the deviations, or ``everything``, as a table."""
    if shown := [line for line in lines if everything or line.deviates or line.named]:
        table = _table(shown, policy, plain=not console.is_terminal)
        if fits(table, console):
            console.print(table)
            return
        for line in shown:
            mark = "* " if policy.fails(line) else "  "
            values = [f"{word} {_value(line, getattr(line, word))}" for word in ("asked", "chosen", "got")]
            verdict = Text(line.verdict.value, style=STYLES[line.verdict])
            said = Text.assemble(", ".join(values), ": ", verdict, ", ", _cause(line))
            entry(Text(f"{mark}{line.where} {_name(line)}"), said, console)


def _conclusion(report: Report, criteria: Criteria, console: Console) -> None:
    if criteria.expected is not None:
        differences = compare(criteria.expected, report.lines)
        for sentence in differences:
            console.print(sentence, style="red")
        console.print(
            f"{len(differences)} differences from the expected report" if differences else "as expected: no difference",
            style="bold red" if differences else "bold green",
        )
        return
    failing = criteria.policy.failing(report.lines)
    kinds = ", ".join(dict.fromkeys(line.verdict.value for line in failing))
    console.print(
        f"{len(failing)} lines fail the policy (marked *): {kinds}" if failing else "as expected: no line fails",
        style="bold red" if failing else "bold green",
    )


def summary(counts: dict[str, int]) -> str:
    """The summary line."""
    said = [f"{counts['asked']} asked"] + [
        f"{counts[verdict]} {verdict.value.replace('-', ' ')}"
        for verdict in Verdict
        if counts[verdict]
        or verdict in (Verdict.HONOURED, Verdict.FORCED_ON, Verdict.FORCED_OFF)
        or verdict in (Verdict.ALTERED, Verdict.UNASKED)
    ]
    return ", ".join(said)


def _header(report: Report, console: Console) -> None:
    environment, request, choice = report.environment, report.request, report.choice
    kvm = {"simulated": "simulated KVM", "not observed": "KVM not observed"}.get(environment.kvm, environment.kvm)
    decided = [f"QEMU {environment.qemu_version}", f"{kvm} ({environment.interface} interface)"]
    decided += [f"TDX module {environment.module}"] if environment.module else []
    decided += [environment.platform] if environment.platform else []
    console.print(
        f"{request}: {many(report.vcpus, 'vCPU')}, choice: {request.choose}",
        style="bold",
    )
    console.print(" · ".join(decided))
    console.print(f"ATTRIBUTES {choice.attributes:#x} ({_names(attribute_names(choice.attributes))})")
    console.print(f"XFAM {choice.xfam:#x} ({_names(xfam_names(choice.xfam))})")
    console.print(summary(report.summary), style="bold")


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _table(lines: Sequence[Line], policy: Policy, *, plain: bool) -> Table:
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "leaf", "reg", "bit", "name"):
        table.add_column(title, no_wrap=True)
    for title in ("asked", "chosen", "got"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("cause", overflow="fold")
    for line in lines:
        table.add_row(
            "*" if policy.fails(line) else "",
            str(Leaf(line.leaf, line.subleaf)),
            line.register,
            bits(line.low, line.high),
            _name(line),
            _value(line, line.asked),
            _value(line, line.chosen),
            _value(line, line.got),
            Text(line.verdict.value, style=STYLES[line.verdict]),
            _cause(line),
        )
    return table


def _name(line: Line) -> str:
    return line.name + (" (KVM relies on it)" if line.critical else "")


def _cause(line: Line) -> str:
    return line.cause + (f" (vCPU {line.vcpu})" if line.vcpu is not None else "")


def _value(line: Line, value: int | None) -> str:
    return "-" if value is None else say(line.name, line.high - line.low + 1, value)
