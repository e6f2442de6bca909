"""Feature words: the registers of CPUID that QEMU keeps features in, and the properties that switch their bits."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from plugin.cpuid import REGISTERS, Leaf, Register

SERIES = "10.2"
"""The QEMU series whose data is used when none is named."""

_FOLDER = Path(__file__).parent / "data"


class Word(NamedTuple):
    """One feature word: ``0x7.0.ebx``, ``0x1.ecx``."""

    leaf: Leaf
    register: Register

    @classmethod
    def parse(cls, text: str) -> "Word":
        """Read a leaf and a register, as in ``0x7.0.ebx``."""
        leaf, _, register = text.rpartition(".")
        return cls(Leaf.parse(leaf), REGISTERS[REGISTERS.index(register)])

    @property
    def place(self) -> tuple[int, int]:
        """Leaf and sub-leaf, 0 where there is none."""
        return self.leaf.number, self.leaf.subleaf or 0


Bits = tuple[tuple[Word, int], ...]
"""Some bits: feature words with a mask each."""

Words = dict[Word, int]
"""The value of every feature word that is not 0."""


class Rules(NamedTuple):
    """The tables of target/i386 that the code of one QEMU series works with; masks by feature word."""

    always_supported: Words
    supported_if_native: Words
    amd_aliases: tuple[Word, Word, int]
    """Bits of 0x80000001.edx that KVM supports when it does those of 0x1.edx."""
    not_automatic: Words
    not_migratable: Words
    tdx_fixed_1: Words
    tdx_attributes: tuple[tuple[int, Words], ...]
    tdx_xfam: tuple[tuple[int, Words], ...]
    tdx_always: Words
    tdx_kvm_features: Words
    dependencies: tuple[tuple[Bits, Bits], ...]
    """What each second needs, in QEMU's order: without any bit of the first, the second is cleared."""
    states: tuple[tuple[int, Bits, int], ...]
    """XSAVE component, the feature that brings it, its size in bytes."""
    levels: tuple[Word, ...]
    """Words that raise the maximum leaf."""


class Features(NamedTuple):
    """All that is named in one QEMU series."""

    words: tuple[Word, ...]
    features: Mapping[str, Bits]
    elsewhere: frozenset[str]
    """Properties that change no bit of CPUID, most of them bits of VMX MSRs."""
    rules: Rules

    def bits(self, name: str) -> Bits:
        """The bits of a feature, of a place such as ``0x7.2.edx[0]`` or of a whole word, ``0x14.0.ecx``."""
        if name in self.features:
            return self.features[name]
        place, bracket, positions = name.partition("[")
        if not bracket:
            return ((Word.parse(place), 0xFFFFFFFF),)
        high, _, low = positions.rstrip("]").partition(":")
        return ((Word.parse(place), (2 << int(high)) - (1 << int(low or high))),)


def read(series: str, name: str) -> Any:
    """Read one JSON file of a series."""
    return json.loads((_FOLDER / series / name).read_bytes())


@lru_cache(maxsize=2)
def load_features(series: str = SERIES) -> Features:
    """Load the features and rules of a series."""
    content, rules = read(series, "features.json"), read(series, "rules.json")
    words = {text: Word.parse(text) for text in content["words"]}
    named = {
        name: tuple((words[word], int(mask, 16)) for word, mask in bits.items())
        for name, bits in content["features"].items()
    }
    features = Features(tuple(words.values()), named, frozenset(content["elsewhere"]), None)  # type: ignore[arg-type]
    return features._replace(rules=_rules(features, rules))


def _rules(features: Features, content: dict[str, Any]) -> Rules:
    def masks(names: Iterable[str]) -> Words:
        return union(features.bits(name) for name in names)

    target, source, mask = content["amd-aliases"]
    return Rules(
        masks(content["always-supported"]),
        masks(content["supported-if-native"]),
        (Word.parse(target), Word.parse(source), int(mask, 16)),
        masks(content["not-automatic"]),
        masks(content["not-migratable"]),
        masks(content["tdx-fixed-1"]),
        tuple((int(bit), masks(names)) for bit, names in content["tdx-attributes"].items()),
        tuple((int(bit), masks(names)) for bit, names in content["tdx-xfam"].items()),
        masks(content["tdx-always"]),
        masks(content["tdx-kvm-features"]),
        tuple((features.bits(first), features.bits(second)) for first, second in content["dependencies"]),
        tuple((int(n), features.bits(name), size) for n, (name, size) in content["states"].items()),
        tuple(Word.parse(text) for text in content["levels"]),
    )


def union(several: Iterable[Bits]) -> Words:
    """All bits of several."""
    words: Words = {}
    for bits in several:
        for word, mask in bits:
            words[word] = words.get(word, 0) | mask
    return words


def has_any(words: Mapping[Word, int], bits: Bits) -> bool:
    """Whether any of the bits is set."""
    return any(words.get(word, 0) & mask for word, mask in bits)
