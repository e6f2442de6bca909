"""The class of each deviation: whose word is not kept, and whether anybody could have it otherwise. Pure."""

from __future__ import annotations

from typing import NamedTuple

from plugin.cpuid import Leaf
from plugin.cpuid.fields import Field
from plugin.cpuid.values import bits
from qmp_client.reconcile.cause import Evidence, Judge
from qmp_client.reconcile.verdict import Kind
from qmp_client.reconcile.words import Word, Words


class Case(NamedTuple):
    """All that a TD's deviations are judged by."""

    evidence: Evidence
    judge: Judge
    words: Words


class Deviation(NamedTuple):
    """One field that is not as it was to be."""

    leaf: Leaf
    field: Field
    wanted: int
    """What the user's word, or else the model, asks for; shifted down to bit 0."""
    got: int | None
    """None where the TD does not tell."""
    cause: str
    word: Word | None
    """What the user said of it."""
    by_guest: str = ""
    """What the guest has not set, where that keeps it from seeing what the TD holds."""

    @property
    def where(self) -> str:
        """Where the field lives, as in ``0x7.0.ebx[5]``."""
        return f"{self.leaf}.{self.field.register}[{bits(self.field.low, self.field.high)}]"


def classify(deviation: Deviation, case: Case) -> Kind:
    """Class a deviation."""
    leaf, field, wanted, got, _, word, by_guest = deviation
    if word is not None and (got is None or not word.kept(field, got)):
        return Kind.BROKEN_WORD
    if got is None:
        return Kind.CRITICAL if field.kvm_critical else Kind.LOST
    possible = not by_guest and case.judge.possible(leaf, field, wanted, case.evidence)
    # A model that takes the processor as it is names no bit: what no TD has otherwise is nobody's word.
    if field.kvm_critical and (possible or case.words.named_model):
        return Kind.CRITICAL
    promised = case.words.named_model and field.width == 1 and bool(wanted)
    return Kind.LOST if promised or possible else Kind.ARCHITECTURAL
