"""What a TD shows of a module that no table knows: a newer one, or one that was changed. Pure.

The module is not asked for its version: its offer and the TD are compared with every known version. So this works on
real hardware too, where nobody says which version runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from plugin.cpuid import ALL, REGISTERS, ZERO, Bit, Cpuid, Leaf, Registers, spelled_like
from plugin.cpuid.fields import field_at, name_of, named_fields_of
from plugin.kvm.policy import ADDED_CPUID, UNSUPPORTED_CPUID
from plugin.tdx_module import ModuleVersion
from qmp_client.reconcile.cause import Evidence


def news(evidence: Evidence, known: Sequence[ModuleVersion], hidden: Cpuid, *, whole_offer: bool = True) -> list[str]:
    """Say in a sentence each what no known version does; empty when one of them explains everything.

    ``hidden`` are configurable bits that KVM never shows. ``whole_offer`` is false when KVM shows only the bits that
    it knows, as in the 2024 proposal: then a bit that is not offered means nothing.
    """
    found = []
    offered = _without(spelled_like(evidence.configurable, evidence.actual), ADDED_CPUID)
    closest = _nearest(offered, known, hidden)
    if new := _bits(_without(offered, *(_offer(module, {}) for module in known))):
        found.append(f"can be configured, which no known TDX module allows: {_names(new)}")
    if whole_offer and (gone := _bits(_without(_offer(closest, hidden), offered))):
        found.append(f"cannot be configured any more, unlike in TDX module {closest.name}: {_names(gone)}")
    if leaves := [leaf for leaf in evidence.actual if all(_absent(module, leaf) for module in known)]:
        found.append(f"in no known TDX module, nobody asked for it: leaf {', '.join(str(leaf) for leaf in leaves)}")
    return found + list(_values(evidence.actual, offered, known))


def nearest(configurable: Cpuid, actual: Cpuid, known: Sequence[ModuleVersion]) -> ModuleVersion:
    """The known version whose offer to a VMM is most like this one; the newest of several."""
    offered = _without(spelled_like(configurable, actual), ADDED_CPUID)
    return _nearest(offered, list(reversed(known)), UNSUPPORTED_CPUID)


def _nearest(offered: Cpuid, known: Sequence[ModuleVersion], hidden: Cpuid) -> ModuleVersion:
    return min(known, key=lambda module: _distance(offered, _offer(module, hidden)))


def _values(actual: Cpuid, offered: Cpuid, known: Sequence[ModuleVersion]) -> Iterator[str]:
    """Compare the TD's bits with those that every known version that has the leaf forces; numbers may grow."""
    set_anyway: list[Bit] = []
    clear_anyway: list[Bit] = []
    unnamed: list[Bit] = []
    for leaf, value in actual.items():
        rows = [row for module in known if (row := module.row_of(leaf)) is not None and not row.ve]
        forced_0, forced_1 = (ALL, ALL) if rows else (ZERO, ZERO)
        for row in rows:
            forced_0 &= row.fixed0_or_dynamic.without(row.dynamic)
            forced_1 &= row.fixed1
        at_odds = _bits({leaf: value & forced_0.without(ADDED_CPUID.get(leaf, ZERO))})
        set_anyway += filter(_is_no_number, at_odds)
        clear_anyway += filter(_is_no_number, _bits({leaf: forced_1.without(value)}))
        if named_fields_of(leaf):
            given = _bits({leaf: value.without(offered.get(leaf, ZERO))})
            unnamed += [bit for bit in given if field_at(bit) is None and bit not in at_odds]
    for bits, what in (
        (set_anyway, "set, though every known TDX module clears it"),
        (clear_anyway, "clear, though every known TDX module sets it"),
        (unnamed, "set without having a name"),
    ):
        if bits:
            yield f"{what}: {_names(bits)}"


def _is_no_number(bit: Bit) -> bool:
    field = field_at(bit)
    return field is None or field.width == 1


def _offer(module: ModuleVersion, hidden: Cpuid) -> dict[Leaf, Registers]:
    return _without(module.configurable, hidden)


def _absent(module: ModuleVersion, leaf: Leaf) -> bool:
    row = module.row_of(leaf)
    return row is None or row.ve


def _without(masks: Cpuid, *others: Cpuid) -> dict[Leaf, Registers]:
    rest = dict(masks)
    for other in others:
        spelled = spelled_like(other, rest)
        rest = {leaf: mask.without(spelled.get(leaf, ZERO)) for leaf, mask in rest.items()}
    return rest


def _distance(one: Cpuid, other: Cpuid) -> int:
    """In how many bits two offers differ."""
    return len([*_bits(_without(one, other)), *_bits(_without(other, one))])


def _bits(masks: Cpuid) -> list[Bit]:
    return [
        Bit(leaf, register, n)
        for leaf, mask in masks.items()
        for register, word in zip(REGISTERS, mask, strict=True)
        if word
        for n in range(32)
        if word >> n & 1
    ]


def _names(bits: Iterable[Bit]) -> str:
    """Name the bits, with their places."""
    said = [str(bit) if field_at(bit) is None else f"{name_of(bit)} ({bit})" for bit in bits]
    return ", ".join(said)
