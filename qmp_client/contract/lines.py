"""Changed bits in groups that a person can take in: one line for bits of the same fate. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from plugin.tdx_module.classes import FIXED_0, VE
from qmp_client.contract.compare import Change, Guarantee


class Group(NamedTuple):
    """Bits that changed in the same way."""

    before: str
    after: str
    breaks: tuple[Guarantee, ...]
    changes: tuple[Change, ...]

    @property
    def where(self) -> str:
        """The bits, as in ``0x7.0.ebx[3,8:9]``, by leaf and register; leaves alike are joined."""
        registers: dict[str, list[int]] = {}
        for change in self.changes:
            registers.setdefault(f"{change.bit.leaf}.{change.register}", []).append(change.position)
        return ", ".join(f"{register}[{spans(positions)}]" for register, positions in registers.items())

    @property
    def names(self) -> list[str]:
        """The names, those that KVM relies on marked with ``!``; then the places of the bits that have none."""
        named = [change.name + "!" * change.critical for change in self.changes if change.name]
        unnamed = self._replace(changes=tuple(change for change in self.changes if not change.name))
        return [*dict.fromkeys(named), *([unnamed.where] if unnamed.changes else [])]


def groups(changes: Iterable[Change]) -> list[Group]:
    """Put bits of the same fate together: those that break a guarantee first, then as they come."""
    found: dict[tuple[str, str, tuple[Guarantee, ...]], list[Change]] = {}
    for change in changes:
        found.setdefault((change.before, change.after, change.breaks), []).append(change)
    made = [Group(*key, tuple(together)) for key, together in found.items()]
    return sorted(made, key=lambda group: not group.breaks)


def noteworthy(changes: Iterable[Change]) -> list[Change]:
    """Leave out what breaks nothing and has no name, or is no more than a zero or a #VE where a #VE was before."""
    return [change for change in changes if change.breaks or (change.name and not _still_nothing(change))]


def _still_nothing(change: Change) -> bool:
    return change.before == VE and (change.after == FIXED_0 or change.after.startswith("#VE"))


def answered(changes: Iterable[Change]) -> list[str]:
    """Name the leaves that raised #VE and have a value now, with what the guest has to set for it if anything."""
    found: dict[str, str] = {}
    for change in changes:
        if change.before == VE != change.after:
            needed = change.after.removeprefix("#VE until ") if change.after.startswith("#VE") else ""
            found[str(change.bit.leaf)] = f" ({needed})" if needed else ""
    return [leaf + needed for leaf, needed in found.items()]


def spans(positions: Sequence[int]) -> str:
    """Write ascending bit positions with ranges: ``3,8:9`` (highest first within a range, as data sheets do)."""
    said: list[list[int]] = []
    for position in positions:
        if said and position == said[-1][1] + 1:
            said[-1][1] = position
        else:
            said.append([position, position])
    return ",".join(str(first) if first == last else f"{last}:{first}" for first, last in said)
