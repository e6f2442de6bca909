"""What this machine has and lacks for each command."""

from __future__ import annotations

import sys
from typing import NamedTuple

from qmp_client import stdout
from qmp_client.doctor.checks import examine
from qmp_client.doctor.finding import diagnose
from qmp_client.doctor.show import show
from qmp_client.errors import MissingError


class Request(NamedTuple):
    """What ``doctor`` was asked."""

    form: str


def run(request: Request) -> int:
    """Examine this machine."""
    diagnosis = diagnose(examine())
    if request.form == "json":
        stdout.put_json(diagnosis)
    else:
        show(diagnosis, sys.stdout)
    return 0 if diagnosis.able else MissingError.exit_code
