"""The options of every command that talks to the lab's broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from qmp_client.lab.broker import Address

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)
OPTIONS = (
    click.option("--broker", required=True, envvar="TDX_CPUID_BROKER", help="mqtt[s]://[USER@]HOST[:PORT]"),
    click.option("--lab", default="lab", show_default=True, envvar="TDX_CPUID_LAB", help="The lab's name in topics."),
    click.option("--ca", type=FILE, help="Certificates that the broker's is checked against.  [default: the system's]"),
    click.option("--certificate", type=FILE, help="This client's certificate."),
    click.option("--key", type=FILE, help="This client's private key."),
    click.option("--password-file", type=FILE, help="A file with the password of USER."),
)


def broker_options(function: F) -> F:
    """Add them to a command; it gets broker, lab, ca, certificate, key and password_file."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def the_address(
    broker: str, ca: Path | None, certificate: Path | None, key: Path | None, password_file: Path | None
) -> Address:
    """Where to connect to."""
    from qmp_client.lab.broker import address  # noqa: PLC0415

    return address(broker, ca, certificate, key, password_file)
