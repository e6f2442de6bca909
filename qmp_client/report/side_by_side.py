"""``negotiate --kvm both``: two reports and what lies between them, as data and as a table."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from plugin.cpuid import Leaf
from plugin.cpuid.values import bits, say
from qmp_client.entries import to_cpuid
from qmp_client.reconcile.interfaces import GAINS, LOSSES, Change, Effect, Side, View, count, differences
from qmp_client.report.console import entry, fits
from qmp_client.report.model import Report
from qmp_client.report.table import summary

SCHEMA = "tdx-cpuid/interfaces/1"
WORDS = {
    Effect.HIDDEN: "cannot be chosen (KVM does not know them and sets them to 1)",
    Effect.BY_HYPERCALL: "answered by hypercall, cannot be set",
    Effect.UNREADABLE: "not read back",
    Effect.OFFERED: "can be chosen in addition",
    Effect.READABLE: "read back in addition",
    Effect.AGREED: "in which KVM and the TD agree now",
    Effect.ALTERED: "otherwise different in the TD",
}


class SideBySide(msgspec.Struct, rename="kebab"):
    """One request through both of KVM's interfaces."""

    upstream: Report
    proposal: Report
    changes: list[Change]
    summary: dict[str, int]
    """Fields for each effect."""
    schema: str = SCHEMA


def side_by_side(upstream: Report, proposal: Report) -> SideBySide:
    """Compare two reports of the same request. Pure."""
    changes = differences(_side(upstream), _side(proposal))
    return SideBySide(upstream, proposal, changes, count(changes))


def _side(report: Report) -> Side:
    tables = report.configurable, report.choice.cpuid, report.actual, report.kvm_copy
    return Side(*(to_cpuid(entries) for entries in tables))


def show(result: SideBySide, console: Console) -> None:
    """Print what the proposal takes and gives, field by field."""
    request, environment = result.upstream.request, result.upstream.environment
    console.print(
        f"{request}: KVM's interface of Linux and the one proposed in 2024, side by side",
        style="bold",
    )
    console.print(
        f"QEMU {environment.qemu_version} · simulated KVM · TDX module {environment.module} · {environment.platform}"
    )
    for report in (result.upstream, result.proposal):
        console.print(f"{report.environment.interface}: {summary(report.summary)}")
    if result.changes:
        table = _table(result.changes, plain=not console.is_terminal)
        if fits(table, console):
            console.print(table)
        else:
            for change in result.changes:
                title = Text.assemble(_sign(change.effect), f" {change.where} {change.name}: {change.effect.value}")
                entry(title, Text(change.sentence), console)
    for line in _conclusion(result):
        console.print(line)
    for caveat in dict.fromkeys([*result.upstream.environment.caveats, *result.proposal.environment.caveats]):
        console.print(f"caveat: {caveat}", style="yellow")


def _conclusion(result: SideBySide) -> list[Text]:
    lines = []
    for title, effects, style in (
        ("lost with the proposal", LOSSES, "bold red"),
        ("gained", GAINS, "bold green"),
        ("changed", (Effect.ALTERED,), "bold magenta"),
    ):
        said = [f"{number} {WORDS[effect]}" for effect in effects if (number := result.summary[effect])]
        lines.append(Text(f"{title}: {', '.join(said) or 'nothing'}", style=style))
    return lines


def _table(changes: Sequence[Change], *, plain: bool) -> Table:
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "leaf", "reg", "bit", "name"):
        table.add_column(title, no_wrap=True)
    for title in ("upstream: chosen", "got", "proposal: chosen", "got"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("effect", no_wrap=True)
    table.add_column("what it means", overflow="fold")
    for change in changes:
        table.add_row(
            _sign(change.effect),
            str(Leaf(change.leaf, change.subleaf)),
            change.register,
            bits(change.low, change.high),
            change.name + (" (KVM relies on it)" if change.critical else ""),
            _value(change, change.upstream.chosen),
            _value(change, _seen(change, change.upstream)),
            _value(change, change.proposal.chosen),
            _value(change, _seen(change, change.proposal)),
            change.effect.value,
            change.sentence,
        )
    return table


def _sign(effect: Effect) -> Text:
    if effect in LOSSES:
        return Text("-", style="red")
    return Text("+", style="green") if effect in GAINS else Text("~", style="magenta")


def _seen(change: Change, view: View) -> int | None:
    """What the guest sees: a #VE leaf is KVM's to answer."""
    return view.kvm if change.effect is Effect.BY_HYPERCALL else view.got


def _value(change: Change, value: int | None) -> str:
    return "-" if value is None else say(change.name, change.high - change.low + 1, value)
