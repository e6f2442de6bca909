"""The report of a negotiation, without QEMU."""

from __future__ import annotations

from typing import NamedTuple

from qmp_client import formats
from qmp_client.names import a_guest, a_host
from qmp_client.negotiation.understand import understand
from qmp_client.predict.predict import predict
from qmp_client.report.criteria import criteria_of


class Request(NamedTuple):
    """What ``predict`` was asked."""

    cpu: str
    smp: str
    module: str
    platform: str
    choose: str
    attributes: str | None
    xfam: str | None
    guest: str
    fail_on: str | None
    form: str
    everything: bool


def run(request: Request) -> int:
    """Predict a report. Raises what ``negotiate`` would raise, and UsageError for what cannot be predicted."""
    criteria = criteria_of(request.fail_on)
    wish = understand(request.choose, request.attributes, request.xfam)
    guest = a_guest(request.guest)
    report = predict(request.cpu, request.smp, wish, a_host(request.module, request.platform), guest)
    formats.load(request.form).put([report], criteria, everything=request.everything)
    return criteria.exit_code(report.lines)
