"""What to simulate, from what a user or a job named; all of it is checked before QEMU is started."""

from __future__ import annotations

from plugin.kvm.launch import DIALECTS
from qmp_client.errors import UsageError
from qmp_client.names import a_host
from qmp_client.qemu.spawn import Simulation


def simulation(
    module: str, platform: str, interface: str = DIALECTS[0], faults: tuple[str, ...] = (), *, strict: bool = False
) -> Simulation:
    """The simulation of a host, with KVM's interface and faults. Raises UsageError, MissingError."""
    host = a_host(module, platform, strict=strict)
    if faults:
        from plugin.kvm.dialects.faults import Faults, UnknownFault  # noqa: PLC0415 - loads the simulated KVM

        try:
            Faults(faults)
        except UnknownFault as error:
            raise UsageError(str(error)) from error
    return Simulation(host, interface, faults)
