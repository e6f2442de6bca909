"""Names that become part of topics."""

from __future__ import annotations

import re
import socket

from qmp_client.errors import UsageError
from qmp_client.lab.wire import NAME


def check_name(option: str, name: str) -> str:
    """The name. Raises UsageError when it cannot be part of a topic."""
    if not re.match(NAME, name):
        raise UsageError(f"{option} {name}: a name has up to 64 letters, digits, dots, dashes and underscores")
    return name


def host_name(given: str | None) -> str:
    """The name given, or this host's own."""
    return check_name("--host", socket.gethostname() if given is None else given)
