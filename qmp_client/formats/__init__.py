"""How ``--format`` prints what a negotiation came to: one report, or two side by side (``--kvm both``).

Each format is a module here, called as the option has it. Only the one that is wanted is loaded, and ``negotiate`` does
that while QEMU makes the TD.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from qmp_client.report.model import Report
from qmp_client.report.policy import Criteria


class Format(Protocol):
    """A module of this room."""

    @staticmethod
    def put(reports: Sequence[Report], criteria: Criteria, *, everything: bool) -> None:
        """Print one report, or what lies between two."""


def load(form: str) -> Format:
    """The format of that name."""
    return cast(Format, import_module(f"{__name__}.{form}"))
