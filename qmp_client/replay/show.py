"""A conversation and its TDs for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from plugin.tdx_module import attribute_names, xfam_names
from qmp_client.replay.read import Call, Talk
from qmp_client.replay.td import NoTd, Story
from qmp_client.report.console import console_for, entry, fits, many
from qmp_client.report.policy import Policy
from qmp_client.report.table import show_lines, summary

WIDEST = 60
"""Columns for what a call said; --format json has it whole."""


def show(talk: Talk, told: Sequence[Story | NoTd], policy: Policy, out: TextIO, *, calls: bool) -> None:
    """Print the calls, one row each (the same again is counted), and the verdicts of each TD."""
    console = console_for(out)
    head = talk.head
    console.print(shlex.join(head.argv), style="bold")
    console.print(f"simulated KVM ({head.interface} interface) · TDX module {head.module} · {head.platform}")
    if calls:
        table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("n", "on", "call", "said", "answer"):
            table.add_column(title, no_wrap=title != "answer", overflow="fold")
        rows: list[tuple[str, str, str, str, str]] = []
        for call, times in _folded(talk.calls):
            again = f" x{times}" if times > 1 else ""
            rows.append((f"{call.n}", call.on, call.command + again, said(call), answer(call)))
            table.add_row(*rows[-1])
        if fits(table, console):
            console.print(table)
        else:
            for n, on, name, words, answered in rows:
                entry(Text(f"{n} {on} {name}", style="bold"), Text(f"{words} -> {answered}".strip()), console)
    failed = sum(bool(call.errno) for call in talk.calls)
    console.print(f"{many(len(talk.calls), 'call')}, {failed} of them refused, {many(len(told), 'TD')}")
    if talk.cut:
        console.print("the last line is not whole: the simulation was killed while it wrote", style="yellow")
    for story in told:
        if isinstance(story, NoTd):
            console.print(f"{story.vm}: no TD: {story.why}", style="bold red")
            continue
        state = "finalised" if story.finalised else "not finalised"
        console.print(f"{story.vm}: TD with {many(story.vcpus, 'vCPU')}, {state}", style="bold")
        console.print(f"ATTRIBUTES {story.attributes:#x} ({', '.join(map(str, attribute_names(story.attributes)))})")
        console.print(f"XFAM {story.xfam:#x} ({', '.join(map(str, xfam_names(story.xfam)))})")
        console.print(summary(story.summary), style="bold")
        show_lines(story.lines, policy, console)
        for note in story.notes:
            console.print(f"note: {note}")


def _folded(calls: Sequence[Call]) -> Iterator[tuple[Call, int]]:
    """Fold calls that are the same, one after another; a row shows the first one."""
    first, times = None, 0
    for call in calls:
        if first is not None and _row(first) == _row(call):
            times += 1
            continue
        if first is not None:
            yield first, times
        first, times = call, 1
    if first is not None:
        yield first, times


def _row(call: Call) -> tuple[str, str, str, str]:
    return call.on, call.command, said(call), answer(call)


def said(call: Call) -> str:
    """What the VMM said, short."""
    words = []
    for name, value in call.said.items():
        if name == "command":
            continue
        if isinstance(value, list):
            words.append(f"{len(value)} {name}")
        elif isinstance(value, dict):
            words.append(f"{name}=({' '.join(f'{part}={_value(one)}' for part, one in value.items())})")
        elif name == "argument" and "type" in call.said:
            continue
        elif name in ("argument", "capability", "type") and (name != "type" or isinstance(value, str)):
            words.append(f"{value}")
        elif value != "":
            words.append(f"{name}={value}" if isinstance(value, int) and value <= 9 else f"{name}={_value(value)}")
    text = " ".join(words)
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def _value(value: object) -> str:
    """A number in hexadecimal, bytes as far as they fit."""
    if isinstance(value, int):
        return f"{value:#x}"
    text = str(value)
    return text if len(text) <= 12 else f"{text[:12]}..."


def answer(call: Call) -> str:
    """What KVM answered, short."""
    if call.errno:
        return f"{call.errno}: {call.why}"
    if call.new:
        return call.new
    if call.waits:
        return "waits"
    lists = ", ".join(f"{len(value)} {name}" for name, value in call.out.items() if isinstance(value, list))
    return lists or f"{call.result}"
