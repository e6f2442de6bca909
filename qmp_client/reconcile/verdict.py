"""The words of a reconciliation: verdicts, and one line about one field."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from plugin.cpuid import Leaf, Register
from plugin.cpuid.values import bits


class Verdict(StrEnum):
    """What became of one bit, or of one field of several bits."""

    HONOURED = "honoured"
    FORCED_ON = "forced-on"
    FORCED_OFF = "forced-off"
    ALTERED = "altered"
    """A field of several bits has another value than asked for."""
    DYNAMIC = "dynamic"
    """The value depends on the moment or the vCPU, so a difference means nothing."""
    BY_HYPERCALL = "by-hypercall"
    """The guest's CPUID raises #VE there: the VMM answers, with what QEMU gave KVM."""
    ZEROED = "zeroed-by-guest"
    """The guest's CPUID raises #VE there, and its own handler answers zeros."""
    UNASKED = "unasked"
    """Present, though QEMU has no name for it and so could not have asked."""
    UNREADABLE = "unreadable"


NOT_THE_TDS = (Verdict.BY_HYPERCALL, Verdict.ZEROED)
"""The verdicts about what the TD does not answer."""
DEVIATIONS = (Verdict.FORCED_OFF, Verdict.ALTERED, Verdict.UNASKED, Verdict.FORCED_ON, Verdict.UNREADABLE)
"""The verdicts that say the TD is not what was asked for, the gravest first."""


class Kind(StrEnum):
    """The class of a deviation: whose word is not kept, and so whether somebody can mend it."""

    BROKEN_WORD = "broken-word"
    """Somebody said it in so many words: ``+x``, ``-x``, ``prop=value`` of ``-cpu``, ``--xfam``, ``--attributes``, or
    a choice file."""
    LOST = "lost"
    """A feature that the named model promises; or any field that could be as it was asked for, in another TD."""
    CRITICAL = "critical"
    """KVM's own emulation relies on it."""
    VCPUS_DIFFER = "vcpus-differ"
    """One vCPU has what another has not."""
    ARCHITECTURAL = "architectural"
    """So in every TD of this module on this processor, whatever is asked."""


def _no_kind() -> None:
    """The class of what does not deviate. A factory, so that each line as JSON has its class."""


def _nothing_seen() -> None:
    """What the guest sees where nobody knows. A factory, too."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field of one leaf: asked, chosen, got, what the guest sees, and who decided.

    Values are the field's own, shifted down to bit 0. ``asked`` is None when the model has no such leaf, ``chosen``
    when KVM does not let userspace choose the field, ``got`` when the TD does not tell, ``guest`` when nobody knows
    what the guest's CPUID instruction answers. The verdict is about ``guest``.
    """

    leaf: int
    register: Register
    low: int
    high: int
    name: str
    asked: int | None
    chosen: int | None
    got: int | None
    verdict: Verdict
    cause: str
    subleaf: int | None = None
    critical: bool = False
    """KVM's own emulation relies on this bit."""
    named: bool = False
    """The user named this feature in ``--cpu``."""
    vcpu: int | None = None
    """The one vCPU that this line is about, when it differs from vCPU 0."""
    kind: Kind | None = msgspec.field(default_factory=_no_kind, name="class")
    """None where nothing deviates."""
    guest: int | None = msgspec.field(default_factory=_nothing_seen)
    """What the CPUID instruction answers in the guest."""
    enforced: bool = False
    """The model promised it, and ``-cpu`` has ``enforce``."""
    mend: str = ""
    """What makes a deviation go away, in one sentence."""
    waived: str = ""
    """Why it may be so all the same: the reason that a waiver gives."""

    @property
    def where(self) -> str:
        """Where the field lives, as in ``0x7.0.ebx[5]``."""
        return f"{Leaf(self.leaf, self.subleaf)}.{self.register}[{bits(self.low, self.high)}]"

    @property
    def values(self) -> str:
        """What was asked, got and, where that is something else, seen: in words."""
        seen = f", the guest sees {self.guest}" if self.guest not in (None, self.got) else ""
        return f"asked {self.asked}, got {self.got}{seen}"

    @property
    def deviates(self) -> bool:
        """Whether the TD is not what was asked for here."""
        return self.verdict in DEVIATIONS
