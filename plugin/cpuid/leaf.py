"""Where a CPUID bit lives: leaf, sub-leaf, register, position."""

from __future__ import annotations

from collections.abc import Mapping

from plugin.typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    Register: TypeAlias = Literal["eax", "ebx", "ecx", "edx"]
else:
    Register = str

REGISTERS: tuple[Register, Register, Register, Register] = ("eax", "ebx", "ecx", "edx")


class Leaf(NamedTuple):
    """A CPUID leaf and sub-leaf: the inputs EAX and ECX of the instruction.

    ``subleaf`` is None where the instruction ignores ECX. KVM expresses that by leaving out
    ``KVM_CPUID_FLAG_SIGNIFCANT_INDEX``, the TDX module by sub-leaf 0xffffffff.
    """

    number: int
    subleaf: int | None = None

    def __str__(self) -> str:
        return f"{self.number:#x}" if self.subleaf is None else f"{self.number:#x}.{self.subleaf}"

    @classmethod
    def parse(cls, text: str) -> Leaf:
        """Read ``0x7.0``, ``7.0``, ``0xd.18``: a hexadecimal leaf, a decimal sub-leaf (or 0x..).

        Raises ValueError when the text is not a leaf or does not fit 32 bits.
        """
        number, dot, subleaf = text.strip().partition(".")
        leaf = cls(int(number, 16), int(subleaf, 0) if dot else None)
        if not 0 <= leaf.number < 1 << 32 or not 0 <= (leaf.subleaf or 0) < 1 << 32:
            raise ValueError(f"{text}: leaf and sub-leaf are 32 bits wide")
        return leaf

    @property
    def order(self) -> tuple[int, int]:
        """A sort key; leaves without a sub-leaf come before those with one."""
        return self.number, -1 if self.subleaf is None else self.subleaf


class Registers(NamedTuple):
    """The four 32-bit outputs of one leaf, or a mask over them.

    The operators are written out: a negotiation uses them some thousand times.
    """

    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0

    def __and__(self, other: Registers) -> Registers:
        return Registers(self[0] & other[0], self[1] & other[1], self[2] & other[2], self[3] & other[3])

    def __or__(self, other: Registers) -> Registers:
        return Registers(self[0] | other[0], self[1] | other[1], self[2] | other[2], self[3] | other[3])

    def __xor__(self, other: Registers) -> Registers:
        return Registers(self[0] ^ other[0], self[1] ^ other[1], self[2] ^ other[2], self[3] ^ other[3])

    def without(self, other: Registers) -> Registers:
        """Clear the bits that are set in ``other``."""
        return Registers(self[0] & ~other[0], self[1] & ~other[1], self[2] & ~other[2], self[3] & ~other[3])

    def get(self, register: Register) -> int:
        """Return one register's value by name."""
        value: int = getattr(self, register)
        return value

    def with_(self, register: Register, value: int) -> Registers:
        """Replace one register's value."""
        return self._replace(**{register: value & 0xFFFFFFFF})


ZERO = Registers()
ALL = Registers(*(0xFFFFFFFF,) * 4)

Cpuid: TypeAlias = Mapping[Leaf, Registers]
"""CPUID of a machine, a TD or a request: leaf to values (or to masks, where a name says so)."""


class Bit(NamedTuple):
    """One bit of CPUID output."""

    leaf: Leaf
    register: Register
    position: int

    def __str__(self) -> str:
        return f"{self.leaf}.{self.register}[{self.position}]"

    def of(self, cpuid: Cpuid) -> int | None:
        """Return the bit's value there, None if the leaf is absent."""
        registers = cpuid.get(self.leaf)
        return None if registers is None else registers.get(self.register) >> self.position & 1


def spelled_like(cpuid: Cpuid, model: Cpuid) -> dict[Leaf, Registers]:
    """Give leaves the spelling that ``model`` uses for them.

    QEMU, KVM and the TDX module do not agree on which leaves have a sub-leaf: what one calls 0x14 is another's
    0x14.0. Leaves that ``model`` does not have stay as they are.
    """
    spelling = {(leaf.number, leaf.subleaf or 0): leaf for leaf in model}
    return {spelling.get((leaf.number, leaf.subleaf or 0), leaf): registers for leaf, registers in cpuid.items()}
