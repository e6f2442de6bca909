"""Any program, with a simulated /dev/kvm."""

from __future__ import annotations

from typing import NamedTuple

from plugin.kvm.command import main


class Request(NamedTuple):
    """The words behind ``sim``."""

    arguments: tuple[str, ...]


def run(request: Request) -> int:
    """Run the command; its exit status is ours."""
    return main(list(request.arguments))
