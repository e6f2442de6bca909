"""``negotiate`` from QEMU's start on: the conversation, and what is printed of it. Loaded while QEMU starts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from plugin.tdx_module.guests import Guest
from qmp_client import formats
from qmp_client.negotiation.run import attach, negotiate, negotiate_all
from qmp_client.negotiation.setup import Setup
from qmp_client.qemu.spawn import Child
from qmp_client.report.model import Report
from qmp_client.report.policy import Criteria, moved


def reports(children: Sequence[Child], setups: Sequence[Setup], form: str) -> list[Report]:
    """Negotiate one TD, or the same one on several KVMs at once. Raises a TdxCpuidError that says which step failed."""
    with asyncio.Runner() as runner:
        runner.get_loop()  # where there can be none, nothing is left that waits to be run
        if len(children) > 1:
            return runner.run(negotiate_all(children, setups))
        return [runner.run(negotiate(children[0], setups[0], meanwhile=lambda: formats.load(form)))]


def attached(qmp_socket: str, cpu: str, timeout: float, guest: Guest) -> list[Report]:
    """Reconcile a TD that already runs."""
    return [asyncio.run(attach(qmp_socket, cpu, timeout, guest))]


def conclude(found: Sequence[Report], criteria: Criteria, form: str, *, everything: bool) -> int:
    """Print the report, or what lies between two; the exit status is that of the worse one."""
    if criteria.expected_in is not None:
        for report in found:
            report.notes += moved(criteria.expected_in, report.environment)
    formats.load(form).put(found, criteria, everything=everything)
    return max(criteria.exit_code(report.lines) for report in found)
