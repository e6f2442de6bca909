"""Explanations as text for people: in full for one bit or field, a table for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from qmp_client.explain.explain import Explanation, ranges
from qmp_client.report.console import console_for

FEW = 3
"""So many explanations are given in full."""


def show(explanations: Sequence[Explanation], out: TextIO) -> None:
    """Print them."""
    console = console_for(out)
    plain = not console.is_terminal
    if len(explanations) > FEW:
        _table(explanations, console, plain=plain)
        return
    for number, explanation in enumerate(explanations):
        if number:
            console.print()
        _full(explanation, console, plain=plain)


def _full(one: Explanation, console: Console, *, plain: bool) -> None:
    title = one.qemu_name or one.name or "a bit without a name"
    console.print(f"{title}  {one.where}", style="bold")
    facts = [
        ("what", one.description or one.name.replace("_", " ") or "reserved, as far as the tables go"),
        ("names", _names(one)),
        *((f"module {versions}", said) for versions, said in ranges(one.modules)),
        ("processors", ", ".join(f"{name} {_native(one, value)}" for name, value in one.platforms.items())),
        ("KVM", _kvm(one)),
        *([(f"choose ({one.module})", one.on)] if one.on == one.off else []),
        *([(f"on ({one.module})", one.on), (f"off ({one.module})", one.off)] if one.on != one.off else []),
    ]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="" if plain else "dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, said in facts:
        table.add_row(f"  {name}", said)
    console.print(table)


def _names(one: Explanation) -> str:
    linux = f"; in Linux: {' '.join(one.linux)}" if one.linux else ""
    return f"{one.name or 'none'}; in QEMU: {one.qemu_name or 'none'}{linux}"


def _native(one: Explanation, value: int) -> str:
    return ("yes" if value else "no") if ":" not in one.where else f"{value:#x}"


def _kvm(one: Explanation) -> str:
    said = ["relies on it for its own emulation"] if one.critical else ["does not rely on it"]
    if one.hidden_by_kvm:
        said.append("hides it from VMMs, though the module lets them choose")
    return "; ".join(said)


def _table(explanations: Sequence[Explanation], console: Console, *, plain: bool) -> None:
    versions = list(explanations[0].modules)
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("bits", no_wrap=True)
    table.add_column("name", no_wrap=True)
    for version in versions:
        table.add_column(version, overflow="fold")
    for one in explanations:
        name = (one.qemu_name or one.name) + " (KVM relies on it)" * one.critical
        table.add_row(one.where, name, *(one.modules[version] for version in versions))
    console.print(table)
