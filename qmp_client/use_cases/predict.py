"""The report of a negotiation, without QEMU."""

from __future__ import annotations

import sys
from typing import NamedTuple

from qmp_client import stdout
from qmp_client.names import a_host
from qmp_client.negotiation.wish import understand
from qmp_client.predict.predict import predict
from qmp_client.report.console import console_for
from qmp_client.report.model import to_json
from qmp_client.report.policy import DEFAULT, Criteria, parse
from qmp_client.report.table import show


class Request(NamedTuple):
    """What ``predict`` was asked."""

    cpu: str
    smp: str
    module: str
    platform: str
    choose: str
    attributes: str | None
    xfam: str | None
    fail_on: str | None
    form: str
    everything: bool


def run(request: Request) -> int:
    """Predict a report. Raises what ``negotiate`` would raise, and UsageError for what cannot be predicted."""
    criteria = Criteria(parse(DEFAULT if request.fail_on is None else request.fail_on))
    wish = understand(request.choose, request.attributes, request.xfam)
    report = predict(request.cpu, request.smp, wish, a_host(request.module, request.platform))
    if request.form == "json":
        stdout.put(to_json(report))
    else:
        show(report, criteria, console_for(sys.stdout), everything=request.everything)
    return criteria.exit_code(report.lines)
