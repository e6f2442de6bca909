"""What is known of one vCPU once it exists."""

from __future__ import annotations

from typing import NamedTuple

from plugin.cpuid import Leaf, Registers
from qmp_client.qmp.wire import RequestedCpuid


class Vcpu(NamedTuple):
    """One vCPU: what ``-cpu`` built for it, and what it has."""

    cpu_index: int
    requested: RequestedCpuid
    actual: dict[Leaf, Registers]
