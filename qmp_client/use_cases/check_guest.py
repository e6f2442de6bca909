"""A real guest's CPUID, held against what is predicted for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from qmp_client import stdout
from qmp_client.errors import UsageError
from qmp_client.names import a_guest, a_host
from qmp_client.negotiation.understand import understand
from qmp_client.observed.choices import of_any_vmm
from qmp_client.observed.compare import compare, nothing_is_free
from qmp_client.observed.dump import NoDump, read
from qmp_client.observed.show import Check, causes_of, predicted_by, show
from qmp_client.predict.predict import predict

ANY = "host"
"""What a TD is predicted with where nobody says how its VMM chose."""


class Request(NamedTuple):
    """What ``check-guest`` was asked."""

    dump: Path
    cpu: str | None
    smp: str
    module: str
    platform: str
    choose: str
    attributes: str | None
    xfam: str | None
    guest: str
    form: str
    everything: bool


def run(request: Request) -> int:
    """Say what agrees, what contradicts and what the dump cannot tell.

    Raises UsageError for a file that is no whole dump of an Intel processor, and what ``predict`` raises.
    """
    guest = a_guest(request.guest)
    wish = understand(request.choose, request.attributes, request.xfam)
    try:
        dump = read(request.dump.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise UsageError(f"the dump {request.dump} cannot be read: {error.strerror}") from error
    except NoDump as error:
        raise UsageError(
            f"{request.dump} {error}", hint="in the guest: cat /proc/cpuinfo, or cpuid -1 -r, into a file"
        ) from error
    host = a_host(request.module, request.platform)
    report = predict(request.cpu or ANY, request.smp, wish, host, guest)
    free = of_any_vmm(host, guest) if request.cpu is None else nothing_is_free
    check = Check(str(request.dump), report, compare(dump, predicted_by(report), causes_of(report), free))
    if request.form == "json":
        stdout.put_json(check.as_data())
    else:
        show(check, sys.stdout, everything=request.everything)
    return check.exit_code
