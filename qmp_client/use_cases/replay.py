"""A recorded conversation, and what became of each TD in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from plugin.tdx_module import PlatformRefused, UnknownName, load_host
from qmp_client import stdout
from qmp_client.names import a_guest
from qmp_client.replay.read import read
from qmp_client.replay.show import show
from qmp_client.replay.td import Story, stories
from qmp_client.report.policy import NONE, Criteria, parse


class Request(NamedTuple):
    """What ``replay`` was asked."""

    file: Path
    calls: bool
    guest: str
    fail_on: str | None
    form: str


def run(request: Request) -> int:
    """Show the calls of a record, and reconcile each of its TDs. Raises UsageError for a file that is no record."""
    criteria = Criteria(parse(request.fail_on or NONE))
    guest = a_guest(request.guest)
    talk = read(request.file)
    try:
        host = load_host(talk.head.module, talk.head.platform)
    except (UnknownName, PlatformRefused):
        host = None
    told = stories(talk, host, guest)
    if request.form == "json":
        calls = talk.calls if request.calls else []
        stdout.put_json({"head": talk.head, "calls": calls, "cut": talk.cut, "tds": told})
    else:
        show(talk, told, criteria.policy, sys.stdout, calls=request.calls)
    return max((criteria.exit_code(story.lines) for story in told if isinstance(story, Story)), default=0)
