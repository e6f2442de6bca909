"""The TDX commands that KVM refused, with the sentence that says why: a VMM shows its user only an errno."""

from __future__ import annotations

import errno

from plugin.kvm.contract import Rejected
from plugin.typing import Any

_KEPT = 16


class Unknown(Rejected):
    """A command without a name: VMMs call such to find out what KVM has, so no refusal to speak of."""


class Refusal:
    """One sentence, and how often it was said in a row."""

    __slots__ = ("errno", "overcome", "times", "why")

    def __init__(self, rejected: Rejected) -> None:
        self.errno = rejected.errno
        self.why = rejected.why
        self.times = 1
        self.overcome = False
        """Whether a later TDX command succeeded, so that the VMM went on."""


class Refusals:
    """The last refusals, oldest first."""

    __slots__ = ("_list",)

    def __init__(self) -> None:
        self._list: list[Refusal] = []

    def add(self, rejected: Rejected) -> None:
        """Note one; the same as the last one only counts, and an unknown command is none."""
        if isinstance(rejected, Unknown):
            return
        last = self._list[-1] if self._list else None
        if last is not None and (last.errno, last.why, last.overcome) == (rejected.errno, rejected.why, False):
            last.times += 1
            return
        self._list = [*self._list[1 - _KEPT :], Refusal(rejected)]

    def went_on(self) -> None:
        """A TDX command succeeded."""
        for refusal in reversed(self._list):
            if refusal.overcome:
                break
            refusal.overcome = True

    def as_json(self) -> list[dict[str, Any]]:
        """Return them as JSON objects."""
        return [
            {
                "errno": errno.errorcode.get(refusal.errno, str(refusal.errno)),
                "why": refusal.why,
                "times": refusal.times,
                "overcome": refusal.overcome,
            }
            for refusal in self._list
        ]
