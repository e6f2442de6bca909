"""The user's own words: what was asked for by name, and so is held against the TD word by word. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, TypeAlias

from plugin.cpuid import REGISTERS, Cpuid, Leaf, Register
from plugin.cpuid.fields import Field, UnknownField, find
from plugin.tdx_module.names import USER_STATE

TSC_UNIT_HZ = 25_000_000
"""0x15 EBX counts the virtual TSC's frequency in it."""

NUMBERS: Mapping[str, tuple[Leaf, Register, int, int]] = {
    "level": (Leaf(0), "eax", 31, 0),
    "xlevel": (Leaf(0x80000000), "eax", 31, 0),
    "phys-bits": (Leaf(0x80000008), "eax", 7, 0),
    "guest-phys-bits": (Leaf(0x80000008), "eax", 23, 16),
    "stepping": (Leaf(1), "eax", 3, 0),
}
"""Numeric properties of ``-cpu`` that are one field: leaf, register, highest and lowest bit."""
TSC = ("tsc-freq", "tsc-frequency")
SUFFIXES = {"k": 10**3, "K": 10**3, "m": 10**6, "M": 10**6, "g": 10**9, "G": 10**9}
"""QEMU's suffixes of a frequency (qemu_strtosz_metric)."""


class Setting(Protocol):
    """One word of ``-cpu``: as it was written, QEMU's property, and its value."""

    @property
    def text(self) -> str:
        """As it was written."""

    @property
    def name(self) -> str:
        """The property."""

    @property
    def value(self) -> str:
        """``on``, ``off``, or something else."""


class Place(Protocol):
    """A register of CPUID."""

    @property
    def leaf(self) -> Leaf:
        """Its leaf."""

    @property
    def register(self) -> Register:
        """Which of the four."""


Names: TypeAlias = Mapping[str, Iterable[tuple[Place, int]]]
"""The features that QEMU knows, by each of their names: registers, and the bits there."""


class Word(NamedTuple):
    """One thing that was said, about some bits of one register."""

    text: str
    """As the user wrote it: ``-stibp``, ``--xfam 0x3``, ``choice.json``."""
    leaf: Leaf
    register: Register
    mask: int
    value: int
    """Under the mask."""
    of_cpu: bool = True
    """A word of ``-cpu``; else an option or a file of choices."""

    def about(self, field: Field) -> bool:
        """Whether it says anything of a field of its register."""
        return bool(self.mask & field.mask)

    def kept(self, field: Field, got: int) -> bool:
        """Whether a field's value, shifted down to bit 0, is as was said."""
        return not ((got << field.low) ^ self.value) & self.mask & field.mask

    def wants(self, field: Field, otherwise: int) -> int:
        """The field as it was to be; ``otherwise`` has the bits that the word says nothing of."""
        mask = (self.mask & field.mask) >> field.low
        return otherwise & ~mask | self.value >> field.low & mask


class Words(NamedTuple):
    """All that was said, and whose model it was said about."""

    said: Mapping[tuple[int, int, Register], tuple[Word, ...]] = {}
    """By leaf, sub-leaf (0 where there is none) and register; the last one counts."""
    named_model: bool = False
    """``-cpu`` names a model of its own, which promises its features."""
    enforce: bool = False
    """``-cpu`` insists on the model."""

    def about(self, leaf: Leaf, field: Field) -> Word | None:
        """What was said of a field of a leaf."""
        of_register = self.said.get((leaf.number, leaf.subleaf or 0, field.register), ())
        return next((word for word in reversed(of_register) if word.about(field)), None)

    def leaves(self) -> set[Leaf]:
        """The leaves that words of ``-cpu`` are about."""
        return {word.leaf for words in self.said.values() for word in words if word.of_cpu}


NOTHING_SAID = Words()


def sort(words: Iterable[Word], *, named_model: bool = False, enforce: bool = False) -> Words:
    """Put words where they are looked for; of two about the same bits the later one counts."""
    said: dict[tuple[int, int, Register], tuple[Word, ...]] = {}
    for word in words:
        place = word.leaf.number, word.leaf.subleaf or 0, word.register
        said[place] = (*said.get(place, ()), word)
    return Words(said, named_model, enforce)


def of_cpu(settings: Iterable[Setting], names: Names) -> list[Word]:
    """What the words of ``-cpu`` say of CPUID; those about anything else say nothing."""
    found = []
    for setting in settings:
        if setting.value in ("on", "off"):
            on = setting.value == "on"
            found += [
                Word(setting.text, leaf, register, mask, mask * on)
                for leaf, register, mask in _bits(setting.name, names)
            ]
        else:
            found += _number(setting)
    return found


def of_xfam(text: str, xfam: int) -> list[Word]:
    """What ``--xfam`` says of leaf 0xD, which shows the TD's state components."""
    user, supervisor = xfam & USER_STATE, xfam & ~USER_STATE
    places: tuple[tuple[int, Register, int, int], ...] = (
        (0, "eax", USER_STATE, user),
        (0, "edx", USER_STATE >> 32, user >> 32),
        (1, "ecx", ~USER_STATE, supervisor),
        (1, "edx", ~USER_STATE >> 32, supervisor >> 32),
    )
    return [
        Word(text, Leaf(0xD, subleaf), register, mask & 0xFFFFFFFF, value & 0xFFFFFFFF, of_cpu=False)
        for subleaf, register, mask, value in places
        if mask & 0xFFFFFFFF
    ]


def of_choice(text: str, entries: Cpuid, configurable: Cpuid) -> list[Word]:
    """What a choice file says: exactly these bits of what may be configured. Leaf 1 EAX 0 is the platform's own."""
    masks = {(leaf.number, leaf.subleaf or 0): mask for leaf, mask in configurable.items()}
    found = []
    for leaf, chosen in entries.items():
        mask = masks.get((leaf.number, leaf.subleaf or 0))
        for register in REGISTERS if mask else ():
            bits = mask.get(register) if mask else 0
            if leaf.number == 1 and register == "eax" and not chosen.eax & bits:
                continue
            if bits:
                found.append(Word(text, leaf, register, bits, chosen.get(register) & bits, of_cpu=False))
    return found


def _bits(name: str, names: Names) -> list[tuple[Leaf, Register, int]]:
    """The bits of a feature, by any of the names that QEMU takes; none for another switch."""
    if known := names.get(name) or names.get(name.replace("-", "_")):
        return [(place.leaf, place.register, mask) for place, mask in known]
    try:  # a feature that is newer than the QEMU whose names are known
        fields = [field for field in find(name) if isinstance(field, Field) and field.qemu_name == name]
    except UnknownField:
        return []
    return [(field.bits()[0].leaf, field.register, field.mask) for field in fields if field.width == 1]


def _number(setting: Setting) -> list[Word]:
    try:
        if setting.name in TSC:
            return [Word(setting.text, Leaf(0x15), "ebx", 0xFFFFFFFF, _hertz(setting.value) // TSC_UNIT_HZ)]
        value = int(setting.value, 0)
    except ValueError:
        return []  # QEMU refuses it, or it is a text
    if setting.name == "family":
        extended = max(value - 0xF, 0)
        return [Word(setting.text, Leaf(1), "eax", 0x0FF00F00, min(value, 0xF) << 8 | extended << 20)]
    if setting.name == "model":
        return [Word(setting.text, Leaf(1), "eax", 0x000F00F0, (value & 0xF) << 4 | (value >> 4 & 0xF) << 16)]
    place = NUMBERS.get(setting.name)
    if place is None:
        return []
    leaf, register, high, low = place
    mask = (1 << high + 1) - (1 << low)
    return [Word(setting.text, leaf, register, mask, value << low & mask)]


def _hertz(text: str) -> int:
    factor = SUFFIXES.get(text[-1:], 1)
    return int(float(text[:-1] if factor > 1 else text) * factor) if text else 0
