"""What can go wrong, and the exit code that each kind of failure ends the command with.

The codes are part of the command line's contract: 0 as expected, 1 the report does not meet the policy, 2 usage,
3 something is missing on this machine, 4 QEMU or KVM failed, 5 a mistake in the program (``plugin.crash``).
"""

from __future__ import annotations

from collections.abc import Sequence


class TdxCpuidError(Exception):
    """The root of the errors that a user is told about in a sentence instead of a traceback."""

    exit_code = 4

    def __init__(self, what: str, *, hint: str = "", quoted: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.hint = hint
        """What to do next."""
        self.quoted = tuple(quoted)
        """The last lines of whoever failed, as they were."""

    @property
    def sentence(self) -> str:
        """What went wrong, with the hint in brackets: for where there is only one line."""
        return f"{self} ({self.hint})" if self.hint else str(self)


class UsageError(TdxCpuidError):
    """What was asked for does not exist or contradicts itself."""

    exit_code = 2


class MissingError(TdxCpuidError):
    """This machine lacks something; the hint is the command that mends it."""

    exit_code = 3


class QemuError(TdxCpuidError):
    """QEMU, KVM or the TDX module refused, died or did not answer."""


def nearest(word: str, known: Sequence[str]) -> str:
    """Name the known words that look most like the given one, as a sentence; empty when none does."""
    from difflib import get_close_matches  # noqa: PLC0415  only a failing command pays for it

    close = get_close_matches(word, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else ""
