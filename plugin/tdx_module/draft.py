"""One leaf of a TD while TDH.MNG.INIT computes it: the value, and who decided which bits.

Every change to a value goes through :meth:`Draft.assign`, which records the decision with it. So a bit's cause is by
construction the last step that decided its value.
"""

from __future__ import annotations

from plugin.cpuid import REGISTERS, Leaf, Register, Registers
from plugin.tdx_module.cause import CONFIGURED, DYNAMIC, FIXED_0, FIXED_1, NATIVE, Cause
from plugin.tdx_module.errors import cpuid_refused
from plugin.tdx_module.module import Row

_ALL = 0xFFFFFFFF
EAX, EBX, ECX, EDX = range(4)


class Draft:
    """Value and decisions of one leaf. Registers are addressed by index (EAX = 0)."""

    __slots__ = ("_decisions", "_values", "leaf")

    def __init__(self, leaf: Leaf, native: Registers) -> None:
        self.leaf = leaf
        self._values = list(native)
        self._decisions: list[tuple[int, int, Cause]] = [(index, _ALL, NATIVE) for index in range(4)]

    @property
    def registers(self) -> Registers:
        """The value as it stands."""
        return Registers._make(self._values)

    def get(self, index: int) -> int:
        """Return one register's value as it stands."""
        return self._values[index]

    def assign(self, index: int, mask: int, value: int, cause: Cause) -> None:
        """Replace the bits under ``mask`` by those of ``value``, on the authority of ``cause``."""
        self._values[index] = self._values[index] & ~mask | value & mask
        self._decisions.append((index, mask, cause))

    def clear(self, cause: Cause, mask: Registers | None = None) -> None:
        """Clear bits (all of the leaf without a mask). Only bits that this changes get the new cause."""
        for index in range(4):
            lost = self._values[index] & (_ALL if mask is None else mask[index])
            if lost:
                self.assign(index, lost, 0, cause)

    def keep(self, cause: Cause, mask: Registers) -> None:
        """Record that the native bits set under ``mask`` are set because ``cause`` allowed it."""
        for index in range(4):
            allowed = self._values[index] & mask[index]
            if allowed:
                native = sum(1 << n for n in _positions(allowed) if self.cause(index, n) == NATIVE)
                if native:
                    self.assign(index, native, native, cause)

    def cause(self, index: int, position: int) -> Cause:
        """Return who decided a bit: the last decision whose mask covers it."""
        for register, mask, cause in reversed(self._decisions):
            if register == index and mask >> position & 1:
                return cause
        raise AssertionError(f"{self.leaf}: no decision about register {index} bit {position}")

    def causes(self, register: Register) -> tuple[Cause, ...]:
        """Return the 32 causes of one register, bit 0 first."""
        index = REGISTERS.index(register)
        causes = [NATIVE] * 32
        for at, mask, cause in self._decisions:
            if at == index:
                for position in _positions(mask):
                    causes[position] = cause
        return tuple(causes)


def _positions(mask: int) -> list[int]:
    return [n for n in range(32) if mask >> n & 1]


def from_table(row: Row, native: Registers, configured: Registers | None) -> Draft:
    """Start a leaf from the native value and the module's table; ``configured`` is the VMM's, None if it has no say.

    Forced bits are applied to every row, because the module does so when it records the native values.
    Raises SeamcallError OPERAND_INVALID(CPUID_CONFIG) when a bit is configured that may not be.
    """
    draft = Draft(row.leaf, native)
    for index in range(4):
        forced0, forced1, dynamic = row.fixed0_or_dynamic[index], row.fixed1[index], row.dynamic[index]
        if forced0 & ~dynamic:
            draft.assign(index, forced0 & ~dynamic, 0, FIXED_0)
        if dynamic:
            draft.assign(index, dynamic, 0, DYNAMIC)
        if forced1:
            draft.assign(index, forced1, forced1, FIXED_1)
    if configured is not None and row.config_index is not None:
        _configure(draft, row, configured)
    return draft


def _configure(draft: Draft, row: Row, configured: Registers) -> None:
    for index, wanted in enumerate(configured):
        direct, allowed = row.config_direct[index], row.allow_direct[index]
        refused = wanted & ~(direct | allowed)
        if refused:
            register = REGISTERS[index]
            raise cpuid_refused(
                row.leaf,
                f"{row.leaf}.{register} is configured with bits {refused:#010x}, which the VMM may not set; "
                f"it may set {direct | allowed:#010x}",
            )
        if direct:
            draft.assign(index, direct, wanted, CONFIGURED)
        # Where the processor lacks an allowed bit, the choice decides nothing: it stays native 0.
        present = allowed & draft.get(index)
        if present:
            draft.assign(index, present, wanted, CONFIGURED)
