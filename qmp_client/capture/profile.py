"""The profile of a host: a platform's file (as in plugin/tdx_module/data/platforms) and a "tdx-module" object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from plugin.cpuid import ZERO, Cpuid, Leaf, Registers, spelled_like
from plugin.kvm.policy import UNSUPPORTED_CPUID, WIDTH, WIDTH_LEAF, for_module
from plugin.tdx_module import ModuleVersion, Platform
from qmp_client.capture.kvm import Offer, by_leaf, masks

SCHEMA = "tdx-cpuid/profile/1"


def profile(
    offer: Offer, processor: Platform, kernel: Mapping[str, str], known: Mapping[str, ModuleVersion], version: str = ""
) -> dict[str, Any]:
    """Put a profile together. Pure.

    ``version`` is the module's own, empty where the kernel does not tell. ``known`` are the versions from which the
    rest of its rules are taken: the same one, or else the most similar.
    """
    like = version if version in known else nearest(offer, known)
    return {
        "schema": SCHEMA,
        "platform": "captured",
        "description": f"{processor.description}, captured",
        "notes": list(processor.notes),
        "tsx_ctrl": processor.tsx_ctrl,
        "cpuid": _table(processor.native),
        "kernel": dict(kernel),
        "tdx-module": {
            "version": version,
            "like": like,
            "attributes": f"{offer.attributes:#x}",
            "xfam": f"{offer.xfam:#x}",
            "configurable": _table(configurable(offer, known[like])),
        },
        "kvm-supported": _table(by_leaf(offer.supported)),
    }


def nearest(offer: Offer, known: Mapping[str, ModuleVersion]) -> str:
    """The newest of the versions whose configurable bits differ least from what KVM offers."""
    distance = {name: _distance(_as_kvm_shows(module), offer) for name, module in known.items()}
    return min(reversed(distance), key=lambda name: distance[name])


def configurable(offer: Offer, like: ModuleVersion) -> dict[Leaf, Registers]:
    """What the module lets KVM configure: KVM's offer without what KVM adds, and with what it always hides.

    The guest address width is KVM's own. HLE, RTM and WAITPKG are hidden whatever the module says; they are taken to
    be as in the most similar version.
    """
    shown = spelled_like(masks(offer.configurable), like.configurable)
    found = {place: for_module(place, mask) for place, mask in shown.items()}
    for place, hidden in UNSUPPORTED_CPUID.items():
        if place in found:
            found[place] |= like.configurable.get(place, ZERO) & hidden
    return found


def _as_kvm_shows(module: ModuleVersion) -> dict[Leaf, Registers]:
    shown = {place: mask.without(UNSUPPORTED_CPUID.get(place, ZERO)) for place, mask in module.configurable.items()}
    return shown | ({WIDTH_LEAF: shown[WIDTH_LEAF] | WIDTH} if WIDTH_LEAF in shown else {})


def _distance(shown: Cpuid, offer: Offer) -> int:
    """How many bits differ."""
    offered = spelled_like(masks(offer.configurable), shown)
    return sum(
        word.bit_count()
        for leaf in shown.keys() | offered.keys()
        for word in shown.get(leaf, ZERO) ^ offered.get(leaf, ZERO)
    )


def _table(cpuid: Cpuid) -> dict[str, str]:
    return {str(leaf): " ".join(f"{word:08x}" for word in registers) for leaf, registers in cpuid.items()}


def to_text(captured: Mapping[str, Any]) -> str:
    """The profile as a file that can be read and compared line by line."""
    return json.dumps(captured, indent=1) + "\n"
