"""From QEMU's command line to what it asks KVM for."""

from collections.abc import Mapping
from typing import NamedTuple

from plugin.cpuid import Leaf, Registers
from plugin.qemu.request import option, topology
from plugin.qemu.request.cpu import Cpu
from plugin.qemu.request.host import Host
from plugin.qemu.request.leaves import build_leaves
from plugin.qemu.request.supported import STATES
from plugin.qemu.request.words import SERIES, Words, load_features

SEPT_VE_DISABLE, PKS = 1 << 28, 1 << 30
"""ATTRIBUTES: what QEMU's tdx-guest sets, and what follows from the feature."""


class Request(NamedTuple):
    """What QEMU asks for, before it masks anything by what is configurable (x-query-tdx-requested-cpuid)."""

    attributes: int
    """64 bits, as xfam."""
    xfam: int
    cpuid: Mapping[Leaf, Registers]
    dropped: Mapping[Leaf, Registers]
    """Feature bits that were asked for and that QEMU took away before KVM saw them."""
    vcpus: int
    cpu: Cpu


def build(cpu_option: str, smp: str, host: Host, series: str = SERIES) -> Request:
    """Compute what a QEMU of this series asks for vCPU 0 of a TD on q35.

    ``cpu_option`` and ``smp`` are ``-cpu`` and ``-smp``. Raises UnknownModel, UnknownFeature, Refused for what QEMU
    would refuse, Unpredictable for what is not modelled.
    """
    features = load_features(series)
    levels = topology.parse(smp)
    cpu = Cpu(features, option.parse(cpu_option, features), levels, host, series)
    return Request(
        attributes=SEPT_VE_DISABLE | (PKS if cpu.has("pks") else 0),
        xfam=cpu.words.get(STATES[0], 0) | cpu.words.get(STATES[1], 0),
        cpuid=build_leaves(cpu),
        dropped=_by_leaf(cpu.dropped),
        vcpus=levels.cpus,
        cpu=cpu,
    )


def _by_leaf(words: Words) -> dict[Leaf, Registers]:
    leaves: dict[Leaf, Registers] = {}
    for word, value in words.items():
        if value:
            leaves[word.leaf] = leaves.get(word.leaf, Registers()).with_(word.register, value)
    return leaves
