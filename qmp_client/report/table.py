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
from plugin.tdx_module.guests import TD
from qmp_client.reconcile.verdict import Kind, Line, Verdict
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
    Verdict.ZEROED: "dim",
}
KIND_STYLES = {
    Kind.BROKEN_WORD: "bold red",
    Kind.CRITICAL: "bold red",
    Kind.VCPUS_DIFFER: "bold red",
    Kind.LOST: "yellow",
    Kind.ARCHITECTURAL: "dim",
}


def show(report: Report, criteria: Criteria, console: Console, *, everything: bool = False) -> None:
    """Print the report: a header, the summary line, the deviations (or ``everything``), and the notes."""
    _header(report, console)
    show_lines(
        report.lines, criteria.policy, console, everything=everything, inferred=report.environment.module is None
    )
    for note in report.notes:
        console.print(f"note: {note}")
    for caveat in report.environment.caveats:
        console.print(f"caveat: {caveat}", style="yellow")
    _conclusion(report, criteria, console)


def show_lines(
    lines: Sequence[Line], policy: Policy, console: Console, *, everything: bool = False, inferred: bool = False
) -> None:
    """Print the deviations, or ``everything``, as a table, and what mends those that fail.

    What is so in every TD is only counted, unless it fails the policy; ``inferred`` where no module's tables say so.
    """
    folded = [line for line in lines if _is_folded(line, policy)]
    shown = [line for line in lines if everything or (_is_told(line) and line not in folded)]
    if shown:
        table = _table(shown, policy, plain=not console.is_terminal)
        if fits(table, console):
            console.print(table)
        else:
            for line in shown:
                values = [f"{word} {_value(line, getattr(line, word))}" for word in ("asked", "chosen", "got", "guest")]
                verdict = Text(line.verdict.value, style=STYLES[line.verdict])
                kind = f" ({line.kind.value})" if line.kind else ""
                said = Text.assemble(", ".join(values), ": ", verdict, kind, ", ", _cause(line))
                entry(Text(f"{_mark(line, policy):2}{line.where} {_name(line)}"), said, console)
    if folded and not everything:
        how = " (inferred)" if inferred else ""
        are = "is" if len(folded) == 1 else "are"
        unseen = sum(line.guest != line.got for line in folded)
        part = f", {unseen} of them only as this guest sees it" if unseen else ""
        console.print(f"{many(len(folded), 'field')} {are} so in every TD of this module{how}{part}: --all")
    for line in policy.failing(lines):
        console.print(f"* {line.where} {line.name}{_of_vcpu(line)}: {line.mend}", style="bold")
    for line in lines:
        if line.waived:
            console.print(f"w {line.where} {line.name}{_of_vcpu(line)}: {line.waived}", style="dim")


def _is_told(line: Line) -> bool:
    return line.deviates or line.named


def _is_folded(line: Line, policy: Policy) -> bool:
    return line.kind is Kind.ARCHITECTURAL and not line.named and not line.waived and not policy.fails(line)


def _mark(line: Line, policy: Policy) -> str:
    return "*" if policy.fails(line) else "w" if line.waived else ""


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
    kinds = ", ".join(dict.fromkeys((line.kind or line.verdict).value for line in failing))
    waived = sum(bool(line.waived) for line in report.lines)
    rest = f" ({waived} waived, marked w)" if waived else ""
    fail = "fails" if len(failing) == 1 else "fail"
    console.print(
        f"{many(len(failing), 'line')} {fail} the policy (marked *): {kinds}{rest}"
        if failing
        else f"as expected: no line fails{rest}",
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
    decided += ["what the TD holds" if request.guest == TD.name else f"as {request.guest} sees it"]
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
    for title in ("asked", "chosen", "got", "guest"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("class", no_wrap=True)
    table.add_column("cause", overflow="fold")
    for line in lines:
        table.add_row(
            _mark(line, policy),
            str(Leaf(line.leaf, line.subleaf)),
            line.register,
            bits(line.low, line.high),
            _name(line),
            _value(line, line.asked),
            _value(line, line.chosen),
            _value(line, line.got),
            _value(line, line.guest),
            Text(line.verdict.value, style=STYLES[line.verdict]),
            Text(line.kind.value, style=KIND_STYLES[line.kind]) if line.kind else "",
            _cause(line),
        )
    return table


def _name(line: Line) -> str:
    return line.name + (" (KVM relies on it)" if line.critical else "")


def _cause(line: Line) -> str:
    return line.cause + _of_vcpu(line)


def _of_vcpu(line: Line) -> str:
    return f" (vCPU {line.vcpu})" if line.vcpu is not None else ""


def _value(line: Line, value: int | None) -> str:
    return "-" if value is None else say(line.name, line.high - line.low + 1, value)
