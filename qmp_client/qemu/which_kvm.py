"""Which KVM to run on: this host's, or the simulated one."""

from __future__ import annotations

from typing import NamedTuple

from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM, DIALECTS
from qmp_client.errors import MissingError
from qmp_client.qemu import tdx_host
from qmp_client.qemu.simulated import simulation
from qmp_client.qemu.spawn import Simulation

BOTH = "both"


class Words(NamedTuple):
    """What the user said about KVM."""

    hardware: bool
    module: str | None
    platform: str | None
    strict_platform: bool
    interface: str | None
    """A name in DIALECTS, or ``both``."""
    faults: tuple[str, ...]


def find_kvms(words: Words) -> list[Simulation | None]:
    """The simulation to run on, or one for each interface where both are compared; None for this host's TDX.

    Names are checked here, before QEMU is started. Raises UsageError, and MissingError for hardware that is not there.
    """
    if not any(words) or words.hardware:
        lacking = tdx_host.what_is_missing()
        if not lacking:
            return [None]
        if words.hardware:
            raise MissingError(f"this host has no TDX: {lacking}", hint="leave out --hardware to simulate one")
    chosen = simulation(
        words.module or DEFAULT_MODULE,
        words.platform or DEFAULT_PLATFORM,
        faults=words.faults,
        strict=words.strict_platform,
    )
    interfaces = DIALECTS if words.interface == BOTH else (words.interface or DIALECTS[0],)
    return [chosen._replace(interface=interface) for interface in interfaces]
