"""CPUID fields by name: what each bit is called, and what QEMU's -cpu calls it.

The names and bit ranges are those of x86-cpuid-db; the table is ``data/fields.csv`` (see ``data/README.md``). It is
read on first use, never on import.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache

from plugin.cpuid.leaf import ALL, REGISTERS, Bit, Leaf, Register, Registers
from plugin.cpuid.linux import linux_flags
from plugin.typing import NamedTuple

_TABLE = os.path.join(os.path.dirname(__file__), "data", "fields.csv")


class Field(NamedTuple):
    """Some adjacent bits of one register that mean something together.

    ``subleaf`` is None where the instruction ignores ECX, else the first and last sub-leaf the field exists on.
    ``qemu_name`` is the -cpu property, empty if there is none; several fields can share one (``family``).
    """

    leaf: int
    subleaf: tuple[int, int] | None
    register: Register
    high: int
    low: int
    name: str
    qemu_name: str = ""
    description: str = ""
    kvm_critical: bool = False
    dynamic: bool = False

    @property
    def width(self) -> int:
        """Number of bits."""
        return self.high - self.low + 1

    @property
    def mask(self) -> int:
        """The field's bits in its register."""
        return (1 << self.high + 1) - (1 << self.low)

    def extract(self, registers: Registers) -> int:
        """Return the field's value, shifted down to bit 0."""
        return (registers.get(self.register) & self.mask) >> self.low

    def on(self, leaf: Leaf) -> bool:
        """Tell whether the field is part of a leaf; a missing sub-leaf is 0."""
        if leaf.number != self.leaf:
            return False
        return self.subleaf is None or self.subleaf[0] <= (leaf.subleaf or 0) <= self.subleaf[1]

    def bits(self, leaf: Leaf | None = None) -> tuple[Bit, ...]:
        """Return the bits, lowest first, on a leaf it is part of; by default the first sub-leaf it exists on."""
        on = leaf or Leaf(self.leaf, None if self.subleaf is None else self.subleaf[0])
        return tuple(Bit(on, self.register, n) for n in range(self.low, self.high + 1))

    def __str__(self) -> str:
        return self.name


class UnknownField(KeyError):
    """No field or bit is called this; the message lists the nearest names."""

    def __init__(self, text: str, nearest: tuple[str, ...]) -> None:
        super().__init__(text)
        self.text = text
        self.nearest = nearest

    def __str__(self) -> str:
        hint = f"did you mean {', '.join(self.nearest)}?" if self.nearest else "names are like waitpkg or 0x7.0.ecx[5]"
        return f"no CPUID field or bit is called {self.text!r}; {hint}"


@lru_cache(maxsize=1)
def all_fields() -> tuple[Field, ...]:
    """Return the whole table, in the order of leaves, registers and bits."""
    with open(_TABLE, encoding="ascii") as file:
        lines = file.read().splitlines()
    return tuple([_field(line) for line in lines[1:]])


def _field(line: str) -> Field:
    # The description comes last and may contain commas.
    leaf, subleaf, register, bits, name, qemu_name, marks, description = line.split(",", 7)
    high, _, low = bits.partition(":")
    first, _, last = subleaf.partition("-")
    return Field(
        int(leaf, 16),
        (int(first), int(last or first)) if first else None,
        REGISTERS[REGISTERS.index(register)],
        int(high),
        int(low or high),
        name,
        qemu_name,
        description,
        "kvm-critical" in marks,
        "dynamic" in marks,
    )


@lru_cache(maxsize=1)
def _by_leaf() -> Mapping[int, tuple[Field, ...]]:
    sorted_out: dict[int, list[Field]] = {}
    for field in all_fields():
        sorted_out.setdefault(field.leaf, []).append(field)
    return {number: tuple(fields) for number, fields in sorted_out.items()}


@lru_cache(maxsize=1)
def _by_name() -> Mapping[str, tuple[Field, ...]]:
    """Key every field by its own name and by QEMU's; punctuation does not matter."""
    named: dict[str, list[Field]] = {}
    for field in all_fields():
        for key in {_plain(field.name), _plain(field.qemu_name)} - {""}:
            named.setdefault(key, []).append(field)
    return {key: tuple(fields) for key, fields in named.items()}


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(".", "")


def named_fields_of(leaf: Leaf) -> tuple[Field, ...]:
    """Return the fields of a leaf that have a name."""
    return tuple(field for field in _by_leaf().get(leaf.number, ()) if field.on(leaf))


def field_at(bit: Bit) -> Field | None:
    """Return the field a bit belongs to, None if the bit has no name."""
    for field in _by_leaf().get(bit.leaf.number, ()):
        if field.register == bit.register and field.low <= bit.position <= field.high and field.on(bit.leaf):
            return field
    return None


def fields_of(leaf: Leaf, unnamed: Registers = ALL) -> tuple[Field, ...]:
    """Cover all 128 bits of a leaf in order; each bit without a name is a field of its own with an empty name.

    Most bits have no name. ``unnamed`` says which of those are wanted.
    """
    named = named_fields_of(leaf)
    return tuple([field for register in REGISTERS for field in _cover(leaf, register, named, unnamed.get(register))])


def _cover(leaf: Leaf, register: Register, named: Sequence[Field], unnamed: int) -> list[Field]:
    fields = [field for field in named if field.register == register]
    for field in fields:
        unnamed &= ~field.mask
    if unnamed:
        subleaf = None if leaf.subleaf is None else (leaf.subleaf, leaf.subleaf)
        fields += [Field(leaf.number, subleaf, register, n, n, "") for n in range(32) if unnamed >> n & 1]
        fields.sort(key=lambda field: field.low)
    return fields


def name_of(bit: Bit) -> str:
    """Name a bit for people: QEMU's name where it has one, else the field's, else its place."""
    field = field_at(bit)
    if field is None:
        return str(bit)
    if field.width == 1:
        return field.qemu_name or field.name
    return f"{field.name}[{bit.position - field.low}]"


def find(text: str) -> tuple[Field | Bit, ...]:
    """Look up what a user typed.

    ``7.0.ecx.5``, ``0x7.0.ecx[5]`` give the field there, or the bare bit if it has no name; ``0x80000008.eax`` and
    ``7.0`` give every named field there; a name (``waitpkg``, ``avx512f``, ``avx512-vnni``) gives each field called
    so, in the table's, in QEMU's or in Linux's terms. Raises UnknownField with the nearest names.
    """
    named = _by_name().get(_plain(text.strip()))
    if named:
        return named
    flag = linux_flags().get(text.strip().lower())
    if flag is not None and flag.bit is not None:
        return (field_at(flag.bit) or flag.bit,)
    place = _place(text.strip().lower())
    if place is None:
        raise _unknown(text)
    leaf, register, position = place
    if register is not None and position is not None:
        bit = Bit(leaf, register, position)
        return (field_at(bit) or bit,)
    found = tuple(field for field in named_fields_of(leaf) if register in (None, field.register))
    if not found:
        raise _unknown(text)
    return found


def _place(text: str) -> tuple[Leaf, Register | None, int | None] | None:
    """Parse leaf[.subleaf][.register[.bit]]; None if it is not of that form."""
    words = text.replace("[", ".").rstrip("]").split(".")
    at = next((n for n, word in enumerate(words) if word in REGISTERS), len(words))
    after = words[at + 1 :]
    try:
        leaf = Leaf.parse(".".join(words[:at]))
        position = int(after[0]) if after else None
    except ValueError:
        return None
    if at > 2 or len(after) > 1 or (position is not None and not 0 <= position < 32):
        return None
    register = next((register for register in REGISTERS if register in words[at : at + 1]), None)
    return leaf, register, position


def _unknown(text: str) -> UnknownField:
    # Imported here because only a failing look-up needs it: difflib is slow to load.
    import difflib  # noqa: PLC0415

    names = {_plain(name): name for field in all_fields() for name in (field.name, field.qemu_name) if name}
    names = {_plain(name): name for name, flag in linux_flags().items() if flag.bit is not None} | names
    close = difflib.get_close_matches(_plain(text), names, n=4, cutoff=0.6)
    return UnknownField(text, tuple(names[name] for name in close))
