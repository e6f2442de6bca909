"""What a module update does to VMMs and guests."""

from __future__ import annotations

import sys
from typing import NamedTuple

from qmp_client import stdout
from qmp_client.contract import show
from qmp_client.contract.compare import compare
from qmp_client.names import a_guest, a_module, a_platform


class Request(NamedTuple):
    """What ``contract`` was asked."""

    old: str
    new: str
    processor: str | None
    guest: str
    form: str
    everything: bool


def run(request: Request) -> int:
    """Compare two module versions. Raises UsageError for one that does not exist."""
    processor = a_platform(request.processor) if request.processor else None
    guest = a_guest(request.guest)
    contract = compare(a_module(request.old), a_module(request.new), processor, guest=guest)
    if request.form == "json":
        stdout.put_json(contract)
    elif request.form == "markdown":
        sys.stdout.write(show.markdown(contract, everything=request.everything))
    else:
        show.show(contract, sys.stdout, everything=request.everything)
    return 0 if contract.kept else 1
