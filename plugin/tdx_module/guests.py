"""Who executes CPUID in the TD: guests by name, each with what it sets and what its #VE handler does."""

from __future__ import annotations

from collections.abc import Iterator

from plugin.tdx_module.guest import PARAVIRTUAL, Controls
from plugin.tdx_module.names import FEATURE_PARAVIRT_CTRL
from plugin.tdx_module.rules.asking import ENUM_TOPOLOGY, REDUCE_VE, VIRT_CPUID2
from plugin.typing import NamedTuple

VMM, ZEROS = "vmm", "guest-zeros"
"""Who answers a #VE: the VMM, asked by TDG.VP.VMCALL<CPUID>, or the guest's own handler with zeros."""


class Guest(NamedTuple):
    """What decides how a guest's CPUID is answered, beside the TD."""

    name: str
    """As the user has it."""
    controls: Controls = Controls()
    """What it sets wherever the module lets it; settle it for a module."""
    asks_vmm: bool = False
    """Its #VE handler asks the VMM about every leaf; else only about paravirtual ones, and answers zeros."""
    is_td: bool = False
    """No guest: what the TD holds."""

    def answers_ve(self, number: int) -> str:
        """Who answers a #VE for a leaf: VMM or ZEROS."""
        return VMM if self.asks_vmm or number in PARAVIRTUAL else ZEROS


TD = Guest("td", asks_vmm=True, is_td=True)
LINUX = Guest("linux", Controls(frozenset((REDUCE_VE, ENUM_TOPOLOGY))))
"""Reduces #VE, where a module cannot enumerates the topology at least, and leaves FEATURE_PARAVIRT_CTRL 0
(arch/x86/coco/tdx/tdx.c)."""
GUESTS = {
    guest.name: guest
    for guest in (
        LINUX,
        Guest("linux-6.6"),  # before it knew TD_CTLS
        Guest("tdvf", asks_vmm=True),
        TD,
    )
}
DEFAULT_GUEST = LINUX.name

_TD_CTLS = {"reduce-ve": REDUCE_VE, "enum-topology": ENUM_TOPOLOGY, "virt-cpuid2": VIRT_CPUID2}
_PARAVIRT, _SUPERVISOR_VE, _ASK_VMM = "paravirt", "supervisor-ve", "ask-vmm"
WORDS = (*_TD_CTLS, _PARAVIRT + "=", _SUPERVISOR_VE, _ASK_VMM)


class UnknownGuest(ValueError):
    """No guest, and no control of one, is called so."""

    def __init__(self, text: str, word: str, known: tuple[str, ...]) -> None:
        super().__init__(text, word)
        self.text = text
        self.word = word
        self.known = known

    def __str__(self) -> str:
        within = "" if self.word == self.text else f" (in {self.text!r})"
        return f"no guest and no control of a guest is called {self.word!r}{within}; there are {', '.join(self.known)}"


def find_guest(text: str) -> Guest:
    """Read a guest's name, or controls by name between commas: ``reduce-ve,paravirt=mtrr+mca``. Raises UnknownGuest."""
    if text in GUESTS:
        return GUESTS[text]
    td_ctls: set[str] = set()
    paravirt: set[str] = set()
    flags: set[str] = set()
    for word in text.split(","):
        key, equals, value = word.partition("=")
        if word in _TD_CTLS:
            td_ctls.add(_TD_CTLS[word])
        elif word in (_SUPERVISOR_VE, _ASK_VMM):
            flags.add(word)
        elif key == _PARAVIRT and equals:
            paravirt |= set(_features(text, value))
        else:
            raise UnknownGuest(text, word, (*GUESTS, *WORDS))
    controls = Controls(frozenset(td_ctls), frozenset(paravirt), supervisor_ve=_SUPERVISOR_VE in flags)
    return Guest(text, controls, asks_vmm=_ASK_VMM in flags)


def _features(text: str, value: str) -> Iterator[str]:
    for name in value.split("+"):
        if name not in FEATURE_PARAVIRT_CTRL:
            raise UnknownGuest(text, name, FEATURE_PARAVIRT_CTRL)
        yield name
