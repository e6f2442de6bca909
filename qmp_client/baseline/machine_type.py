"""Which machine types are a promise: those with a version that was released. Pure."""

from __future__ import annotations

import re

VERSIONED = re.compile(r"(?P<family>.+)-(?P<major>\d+)\.(?P<minor>\d+)")
QEMU = re.compile(r"(\d+)\.(\d+)\.")


def frozen(machine: str, qemu_version: str) -> bool:
    """Whether a machine type must never change, from that QEMU on.

    A type without a version may change with each release. One that is newer than the QEMU, as ``pc-q35-11.0`` in
    10.2.50, belongs to a release that is still being made.
    """
    own, found = version(machine), QEMU.match(qemu_version)
    if own is None:
        return False
    return found is None or own <= (int(found[1]), int(found[2]))


def version(machine: str) -> tuple[int, int] | None:
    """The version in a machine type's name, if it has one."""
    match = VERSIONED.fullmatch(machine)
    return (int(match["major"]), int(match["minor"])) if match else None


def family(machine: str) -> str:
    """The name without the version."""
    match = VERSIONED.fullmatch(machine)
    return match["family"] if match else machine


def age(machine: str) -> tuple[bool, str, tuple[int, int], str]:
    """A sort key: oldest version first, types without a version last."""
    own = version(machine)
    return own is None, family(machine), own or (0, 0), machine


def newer(offered: list[str], known: list[str]) -> list[str]:
    """The offered machine types that are newer than all known ones of their family."""
    latest: dict[str, tuple[int, int]] = {}
    for machine in known:
        latest[family(machine)] = max(latest.get(family(machine), (0, 0)), version(machine) or (0, 0))
    return sorted(
        (name for name in offered if (version(name) or (0, 0)) > latest.get(family(name), (1 << 16, 0))), key=age
    )
