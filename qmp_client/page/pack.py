"""TDs as the page's script reads them, said as briefly as possible. Pure.

A grid repeats itself: hundreds of TDs share a few hundred distinct lines. Every text is stored once, every field
once, every line once, and a TD is the set of its lines, said as the difference from the most similar of those
before it. ``model.js`` is the reader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from plugin.cpuid import REGISTERS
from plugin.cpuid.values import say
from plugin.tdx_module import attribute_names, xfam_names
from qmp_client.page.shown import NoReport, Shown
from qmp_client.reconcile.verdict import DEVIATIONS, Line, Verdict
from qmp_client.report.model import Report
from qmp_client.report.policy import Criteria, Policy

Json: TypeAlias = "int | float | str | Sequence[Json] | dict[str, Json]"

NONE = -1
NAMED, FAILS = 1, 2
"""What is special about a line; "KVM relies on it" belongs to the field."""

MEANINGS = {
    Verdict.HONOURED: ("=", "as asked"),
    Verdict.FORCED_ON: ("+", "the TD has it, though it was not asked for"),
    Verdict.FORCED_OFF: ("\N{MINUS SIGN}", "asked for, and the TD does not have it"),
    Verdict.ALTERED: ("\N{NOT EQUAL TO}", "the field has another value than asked for"),
    Verdict.UNASKED: ("?", "present, and QEMU has no name for it"),
    Verdict.DYNAMIC: ("~", "depends on the moment or the vCPU"),
    Verdict.BY_HYPERCALL: ("v", "CPUID raises #VE there, and the VMM answers"),
    Verdict.ZEROED: ("0", "CPUID raises #VE there, and the guest itself answers zeros"),
    Verdict.UNREADABLE: ("\N{MULTIPLICATION SIGN}", "the TD does not tell"),
}
_VERDICTS = tuple(Verdict)
_LOOK_BACK = 24
"""With how many earlier TDs a new one is compared: neighbours in a grid are similar."""


class _Table:
    """Values in the order of their first use, each with a number."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[int, ...] | str, int] = {}

    def __call__(self, value: tuple[int, ...] | str) -> int:
        return self.numbers.setdefault(value, len(self.numbers))


class _Encoded(NamedTuple):
    base: int
    changes: list[int]


def pack(tds: Sequence[Shown], policy: Policy) -> dict[str, Json]:
    """Everything that the page shows."""
    criteria = Criteria(policy)
    strings, fields, facts = _Table(), _Table(), _Table()
    lines = _lines(tds, policy, strings, fields)
    labels = _short(dict.fromkeys(td.where.qemu for td in tds))
    recent: deque[tuple[int, frozenset[int]]] = deque(maxlen=_LOOK_BACK)
    cells: list[Json] = []
    for number, (at, became, seconds) in enumerate(tds):
        where = (at.cpu, labels[at.qemu], at.kvm, at.platform, at.module, at.machine, at.smp)
        packed: list[Json] = [[strings(text) for text in where], round(seconds, 3)]
        if isinstance(became, NoReport):
            packed += [became.exit_code, strings(became.why)]
        else:
            own = frozenset(lines[_line(line, policy, strings, fields)] for line in became.lines)
            encoded = _encode(own, recent)
            recent.append((number, own))
            packed += [criteria.exit_code(became.lines), NONE]
            packed += [facts(_facts(became, at.qemu, strings)), encoded.base, encoded.changes]
        cells.append(packed)
    return {
        "axes": ["CPU", "QEMU", "KVM", "platform", "module", "machine", "SMP"],
        "verdicts": [[verdict.value, *MEANINGS[verdict], int(verdict in DEVIATIONS)] for verdict in _VERDICTS],
        "strings": list(strings.numbers),
        "fields": list(fields.numbers),
        "lines": [list(line) for line in lines],
        "facts": list(facts.numbers),
        "cells": cells,
    }


def _lines(tds: Sequence[Shown], policy: Policy, strings: _Table, fields: _Table) -> dict[tuple[int, ...], int]:
    """Every distinct line of all TDs, numbered in the order in which a report shows them."""
    seen: dict[tuple[int, ...], tuple[int, ...]] = {}
    for td in tds:
        for line in () if isinstance(td.became, NoReport) else td.became.lines:
            seen[_line(line, policy, strings, fields)] = _order(line)
    return {line: number for number, line in enumerate(sorted(seen, key=lambda line: (seen[line], line)))}


def _order(line: Line) -> tuple[int, ...]:
    subleaf, vcpu = (NONE if value is None else value for value in (line.subleaf, line.vcpu))
    return line.leaf, subleaf, REGISTERS.index(line.register), -line.high, vcpu


def _line(line: Line, policy: Policy, strings: _Table, fields: _Table) -> tuple[int, ...]:
    place = (line.leaf, NONE if line.subleaf is None else line.subleaf, REGISTERS.index(line.register))
    field = fields((*place, line.low, line.high, strings(line.name), int(line.critical)))
    width = line.high - line.low + 1
    values = (
        NONE if value is None else strings(say(line.name, width, value))
        for value in (line.asked, line.chosen, line.got, line.guest)
    )
    special = NAMED * line.named | FAILS * policy.fails(line)
    vcpu = NONE if line.vcpu is None else line.vcpu
    return field, *values, _VERDICTS.index(line.verdict), strings(line.cause), special, vcpu


def _encode(own: frozenset[int], recent: Iterable[tuple[int, frozenset[int]]]) -> _Encoded:
    """Name the lines that the TD has and its base has not, or the reverse; each number said as a step."""
    base, other = min(recent, key=lambda earlier: len(own ^ earlier[1]), default=(NONE, frozenset[int]()))
    changes = sorted(own ^ other)
    return _Encoded(base, [now - before for before, now in zip([0, *changes], changes, strict=False)])


def _facts(report: Report, qemu: str, strings: _Table) -> tuple[int, ...]:
    """Pairs of label and text about one TD."""
    environment, choice = report.environment, report.choice
    pairs = [
        ("QEMU", f"{environment.qemu_version} ({qemu})"),
        ("KVM", f"{environment.kvm}, {environment.interface} interface"),
        ("choice", report.request.choose),
        ("guest", report.request.guest),
        ("ATTRIBUTES", f"{choice.attributes:#x} ({', '.join(attribute_names(choice.attributes)) or 'none'})"),
        ("XFAM", f"{choice.xfam:#x} ({', '.join(xfam_names(choice.xfam)) or 'none'})"),
        ("vCPUs", f"{report.vcpus}"),
        *(("note", note) for note in report.notes),
        *(("caveat", caveat) for caveat in environment.caveats),
    ]
    return tuple(strings(text) for pair in pairs for text in pair)


def _short(paths: Iterable[str]) -> dict[str, str]:
    """Call each path by what tells it from the others: ``/opt/10.1/bin/qemu`` is ``10.1`` next to ``10.2``."""
    parts = {path: path.split("/") for path in paths}
    if len(parts) == 1:
        return {path: own[-1] or path for path, own in parts.items()}
    shared = _shared(list(parts.values()))
    rest = {path: own[shared:] for path, own in parts.items()}
    tail = _shared([own[::-1] for own in rest.values()])
    short = {path: "/".join(own[: len(own) - tail]) for path, own in rest.items()}
    return short if all(short.values()) else {path: path for path in parts}


def _shared(sequences: list[list[str]]) -> int:
    """How many of their first elements all sequences have in common."""
    count = 0
    for elements in zip(*sequences, strict=False):
        if len(set(elements)) > 1:
            break
        count += 1
    return count
