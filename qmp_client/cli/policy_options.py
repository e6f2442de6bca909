"""How reports are judged: the options that every command has that makes some.

The words are written out here, because judging is loaded with a use case only; ``tests/cli`` holds them to the policy.
"""

from __future__ import annotations

import click

CLASSES = "broken-word, lost, critical, vcpus-differ, architectural"
VERDICTS = "forced-off, altered, unasked, forced-on, unreadable"
DEFAULT = "broken-word,critical,vcpus-differ,enforced"


def fail_on(default: str = DEFAULT) -> click.Option:
    """``--fail-on``, with the words that it takes; ``default`` is what holds without it."""
    return click.Option(
        ["--fail-on"],
        metavar="WORDS",
        help=f"What makes the exit status 1, between commas: classes ({CLASSES}), enforced (lost, where --cpu has"
        f" enforce), verdicts ({VERDICTS}), or none.  [default: {default}]",
    )
