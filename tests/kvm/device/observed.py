"""All that a simulated KVM holds and says, as plain values that can be compared."""

from __future__ import annotations

import io
import mmap
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugin.kvm.contract import Device
    from plugin.kvm.device import SimulatedKvm

_ROOMS = ("plugin.kvm.device", "plugin.kvm.dialects", "plugin.kvm.conversation")
_ELSEWHERE = ("host", "vm")  # what a device refers to: both are looked at by themselves


def state(kvm: SimulatedKvm, devices: Iterable[Device]) -> list[object]:
    """What the host, the dialect, every TD and each of these devices remember, and what the record says."""
    return [_held(kvm), _held(kvm.host), kvm.record(), *(_held(device) for device in devices)]


def _held(thing: object) -> object:
    if isinstance(thing, dict):
        return {key: _held(value) for key, value in thing.items()}
    if isinstance(thing, list):
        return [_held(value) for value in thing]
    if isinstance(thing, set):
        return frozenset(thing)
    if isinstance(thing, array):
        return tuple(thing)
    if isinstance(thing, mmap.mmap):
        return thing[:]
    if isinstance(thing, io.StringIO):
        return thing.getvalue()
    if isinstance(thing, tuple) or not type(thing).__module__.startswith(_ROOMS):
        return thing
    names = getattr(type(thing), "__slots__", None) or vars(thing)
    return {name: _held(getattr(thing, name)) for name in names if name not in _ELSEWHERE}
