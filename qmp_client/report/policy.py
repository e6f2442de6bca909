"""When a report is not good enough: the classes and verdicts that fail it, or its difference from a saved one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from qmp_client.errors import UsageError, nearest
from qmp_client.reconcile.verdict import DEVIATIONS, Kind, Line, Verdict

if TYPE_CHECKING:
    from qmp_client.report.model import Environment

ENFORCED = "enforced"
"""A word for what is lost where ``-cpu`` has ``enforce``."""
CLASSES = tuple(kind.value for kind in Kind)
VERDICTS = tuple(verdict.value for verdict in DEVIATIONS)
WORDS = (*CLASSES, ENFORCED, *VERDICTS)
DEFAULT = "broken-word,critical,vcpus-differ,enforced"
NONE = "none"


class Policy(NamedTuple):
    """Which lines fail a report: those of these classes and verdicts, unless a waiver lets them pass."""

    kinds: frozenset[Kind]
    verdicts: frozenset[Verdict]
    enforced: bool
    """Whether what is lost fails it where ``-cpu`` has ``enforce``."""

    def fails(self, line: Line) -> bool:
        """Whether this line alone makes the command exit with 1."""
        if line.waived:
            return False
        return line.kind in self.kinds or line.verdict in self.verdicts or (self.enforced and line.enforced)

    def failing(self, lines: Iterable[Line]) -> list[Line]:
        """The lines that fail a report, in their order."""
        return [line for line in lines if self.fails(line)]


def parse(text: str) -> Policy:
    """Read ``--fail-on``: classes and verdicts between commas, or ``none``. Raises UsageError."""
    words = {word.strip() for word in text.split(",")} - {"", NONE}
    for word in sorted(words - set(WORDS)):
        raise UsageError(
            f"--fail-on {word}: no such class or verdict",
            hint=nearest(word, WORDS) or f"it takes {', '.join(WORDS)} or none",
        )
    return Policy(
        frozenset(Kind(word) for word in words.intersection(CLASSES)),
        frozenset(Verdict(word) for word in words.intersection(VERDICTS)),
        ENFORCED in words,
    )


class Criteria(NamedTuple):
    """What a report is held against: the policy, or a saved report in its stead."""

    policy: Policy
    expected: list[Line] | None = None
    """The lines of the report that ``--expect`` names."""
    expected_in: Environment | None = None
    """Where that report came about."""

    def exit_code(self, lines: Iterable[Line]) -> int:
        """The exit status for a report with these lines: 0 as it is wanted, 1 not so. Nothing else decides that."""
        if self.expected is not None:
            return 1 if compare(self.expected, lines) else 0
        return 1 if self.policy.failing(lines) else 0


def moved(before: Environment, now: Environment) -> list[str]:
    """Say what has another version or name than when a report was saved: differences may come from there."""
    return [
        f"since the expected report was saved: {what} {old or 'unknown'} -> {new or 'unknown'}"
        for what, old, new in (
            ("TDX module", before.module, now.module),
            ("platform", before.platform, now.platform),
            ("QEMU", before.qemu_version, now.qemu_version),
            ("KVM", before.kvm, now.kvm),
            ("KVM interface", before.interface, now.interface),
        )
        if old != new
    ]


def compare(expected: Iterable[Line], found: Iterable[Line]) -> list[str]:
    """Say which deviations came, went or changed since a report was saved."""
    before = {_place(line): line for line in expected if line.deviates}
    now = {_place(line): line for line in found if line.deviates}
    sentences = []
    for place in sorted(before.keys() | now.keys(), key=str):
        old, new = before.get(place), now.get(place)
        if old is None and new is not None:
            sentences.append(f"new: {_say(new)}")
        elif new is None and old is not None:
            sentences.append(f"gone: {_say(old)}")
        elif old is not None and new is not None and _outcome(old) != _outcome(new):
            sentences.append(f"changed: {_say(old)} -> {_outcome_text(new)}")
    return sentences


def _place(line: Line) -> tuple[object, ...]:
    return line.leaf, line.subleaf, line.register, line.low, line.high, line.vcpu


def _outcome(line: Line) -> tuple[object, ...]:
    return line.verdict, line.asked, line.got, line.guest


def _say(line: Line) -> str:
    return f"{line.where} {line.name}: {_outcome_text(line)}"


def _outcome_text(line: Line) -> str:
    return f"{line.values}, {line.verdict}"
