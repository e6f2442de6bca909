"""What a guest's CPUID instruction answers, leaf by leaf, from what the TD holds. Pure.

The module's rules and the guest's controls are ``plugin.tdx_module.guest``'s; here is who answers a #VE, and with what.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from plugin.cpuid import ZERO, Cpuid, Leaf, Registers, spelled_like
from plugin.cpuid.fields import Field
from plugin.tdx_module import ModuleVersion
from plugin.tdx_module.guest import PARAVIRTUAL, SUPERVISOR_VE, answer, settled
from plugin.tdx_module.guests import ZEROS, Guest
from plugin.tdx_module.rules.asking import REDUCE_VE, TD_CTLS, Shown


class Sight(NamedTuple):
    """One leaf, as the code in the guest that executes CPUID finds it in the end."""

    registers: Registers | None
    """None: the VMM answers, and with what is not known."""
    ve: str = ""
    """Who answered the #VE, if there was one: VMM or ZEROS of ``plugin.tdx_module.guests``."""
    why: str = ""
    """What raises the #VE: a TD_CTLS bit that is not set, ``paravirtual``, or empty where no value is held."""
    shown: tuple[Shown, ...] = ()
    """What is not as the TD holds it."""

    def causes(self, field: Field, differing: int) -> list[str]:
        """Who decided those bits of a field (bit 0 is the field's lowest) that are not as the TD holds them."""
        bits = differing << field.low
        return list(dict.fromkeys(str(cause) for mask, _, cause in self.shown if mask.get(field.register) & bits))

    def said_of_ve(self, *, answers: bool) -> str:
        """Why there is a #VE, and who answers; ``answers`` is whether KVM has anything to answer with."""
        until = f"#VE until the guest sets TD_CTLS.{self.why}" if self.why in TD_CTLS else "#VE"
        if self.why == SUPERVISOR_VE:
            until = f"#VE by {SUPERVISOR_VE}"
        if self.ve == ZEROS:
            return f"{until}: the guest answers 0"
        return f"{until}: the VMM answers" if answers else f"{until}: KVM has no answer, the guest gets 0"


class Tables(NamedTuple):
    """Whose rules a view goes by."""

    module: ModuleVersion
    native: Cpuid | None
    """The processor's values as the module samples them (``Td.native``); None where only the TD is known."""


class View:
    """A guest's view of a TD."""

    def __init__(self, guest: Guest, tables: Tables, held: Cpuid, answers: Cpuid, *, complete: bool) -> None:
        """``held`` is what the TD holds, ``answers`` what the VMM answers to a #VE.

        ``complete``: it answers zeros for every other leaf; else that is not known.
        """
        self.guest = guest
        self.module = tables.module
        self._certain = tables.native is not None
        self._held = spelled_like(held, dict.fromkeys(self.module.rows, ZERO))
        self._native = tables.native or {}
        self._answers = {(leaf.number, leaf.subleaf or 0): value for leaf, value in answers.items()}
        self._else = ZERO if complete else None
        self._controls = settled(self.module.guest, guest.controls)

    def assumptions(self) -> list[str]:
        """Say in a sentence each what the view cannot know."""
        if self.guest.is_td:
            return []
        missing = [note for note in self.module.notes if note.startswith("Not modelled:")]
        said = [f"module {self.module.name}: {note[0].lower()}{note[1:]}" for note in missing]
        if not self._certain:
            said.insert(0, f"what the guest sees is inferred, by the rules of {self.module.name}: its offer is alike")
            if self.module.guest.native.keys() & self._held.keys() and REDUCE_VE in self._controls.td_ctls:
                said.append("caches (leaf 4) are shown as the TD holds them; the guest sees the processor's own")
        return said

    def of(self, leaf: Leaf) -> Sight:
        """Look at one leaf. Bits that depend on the moment or the vCPU are as the TD holds them."""
        if self.guest.is_td:
            return self._of_td(leaf)
        found = answer(self.module, self._held, self._native, self._controls, leaf)
        if found.registers is None:
            return self._after_ve(leaf, found.causes[0].cause.detail)
        return Sight(found.registers, shown=found.causes)

    def _of_td(self, leaf: Leaf) -> Sight:
        held = (
            self._held.get(leaf)
            or self._held.get(Leaf(leaf.number, leaf.subleaf or 0))
            or self._held.get(Leaf(leaf.number))
        )
        needed = self.module.guest.ve_until.get(leaf.number, "")
        return self._after_ve(leaf, needed) if held is None or needed else Sight(held)

    def _after_ve(self, leaf: Leaf, why: str) -> Sight:
        by = self.guest.answers_ve(leaf.number)
        registers = ZERO if by == ZEROS else self._answers.get((leaf.number, leaf.subleaf or 0), self._else)
        return Sight(registers, by, why)

    @cached_property
    def everything(self) -> dict[Leaf, Sight]:
        """Every leaf up to the maxima, every one that the TD holds, and those that the VMM answers for."""
        known = [*self._held, *(Leaf(number, subleaf or None) for number, subleaf in self._answers)]
        places = {(leaf.number, leaf.subleaf or 0): leaf for leaf in reversed(known)}
        for first in (0x0, 0x80000000):
            last = self._held.get(Leaf(first), ZERO).eax
            for number in range(first, last + 1) if last - first < 0x1000 else ():
                places.setdefault((number, 0), Leaf(number))
        leaves = sorted(places.values(), key=lambda leaf: leaf.order)
        return {leaf: self.of(leaf) for leaf in leaves if self._is_answered(leaf.number)}

    def _is_answered(self, number: int) -> bool:
        """Whether a leaf is one of its own: not above a maximum, where CPUID answers as for another one."""
        last = self._held.get(Leaf(number & 0x80000000), ZERO).eax
        return number in PARAVIRTUAL or number <= last
