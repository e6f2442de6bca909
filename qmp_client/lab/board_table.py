"""A lab for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qmp_client.lab.board import Board, Host
from qmp_client.lab.printable import printable
from qmp_client.lab.wire import Change

STATES = {"online": "green", "draining": "yellow", "drained": "yellow", "offline": "red"}
OUTCOMES = {"measured": "green", "failed": "red", "running": "cyan"}
HOST_TITLES = ("host", "pool", "state", "running", "waiting", "TDX", "QEMU", "vCPUs", "disks")
MOST = 3
"""How many changed fields a drift event names."""


def table(board: Board, *, plain: bool, height: int = 0) -> RenderableType:
    """Everything, one table under the other.

    On a screen of that ``height`` hosts take a third of it at most, so that the rest is seen as well.
    """
    parts: list[RenderableType] = []
    if board.hosts:
        shown, hidden = _that_fit(board.hosts, max(1, height // 3) if height else len(board.hosts))
        parts.append(_table(HOST_TITLES, map(_host, shown), plain=plain))
        if hidden:
            states = Counter(_state(host) for _, host in hidden)
            parts.append(Text(f"and {len(hidden)} more: {', '.join(f'{n} {state}' for state, n in states.items())}"))
    else:
        parts.append(Text("no host has said anything yet"))
    if board.drift:
        rows_of_drift = (
            (event.host, event.cpu, str(len(event.changes)), event.likely, _changes(event.changes))
            for event in reversed(board.drift)
        )
        parts.append(_table(("drift on", "cpu", "fields", "likely reason", "such as"), rows_of_drift, plain=plain))
    if board.jobs:
        rows = (
            (said.job, said.host, said.cpu, _coloured(said.outcome or said.state, OUTCOMES), said.reason)
            for said in reversed(board.jobs.values())
        )
        parts.append(_table(("job", "host", "cpu", "state", "why"), rows, plain=plain))
    if board.rejections:
        rejections = ((said.job or "-", said.host, said.reason) for said in reversed(board.rejections))
        parts.append(_table(("rejected", "by", "why"), rejections, plain=plain))
    return Group(*parts)


def _that_fit(hosts: Mapping[str, Host], most: int) -> tuple[list[tuple[str, Host]], list[tuple[str, Host]]]:
    """The hosts to show, by name, and the others: those that rest and are well are left out first."""
    ranked = sorted(hosts.items(), key=lambda one: (_rests(one[1]), one[0]))
    return sorted(ranked[:most], key=itemgetter(0)), ranked[most:]


def _rests(host: Host) -> bool:
    status = host.status
    return status is not None and status.state == "online" and not status.running and not status.waiting


def _state(host: Host) -> str:
    return host.status.state if host.status else "unknown"


def _host(one: tuple[str, Host]) -> Sequence[str | Text]:
    name, host = one
    status, can = host.status, host.capabilities
    return (
        name,
        status.pool if status else "",
        _coloured(_state(host), STATES),
        str(status.running) if status else "",
        str(status.waiting) if status else "",
        f"{can.kvm} {' '.join(can.modules)}".rstrip() if can else "",
        " ".join(can.qemu) if can else "",
        f"<= {can.max_vcpus}" if can else "",
        " ".join(can.disks) if can else "",
    )


def _changes(changes: Sequence[Change]) -> str:
    some = [f"{change.name or change.field} {change.before:#x} -> {change.now:#x}" for change in changes[:MOST]]
    return ", ".join(some) + (" ..." if len(changes) > MOST else "")


def _coloured(word: str, styles: dict[str, str]) -> Text:
    return Text(printable(word), style=styles.get(word, ""))


def _table(titles: Sequence[str], rows: Iterable[Sequence[str | Text]], *, plain: bool) -> Table:
    made = Table(*titles, box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    return made
