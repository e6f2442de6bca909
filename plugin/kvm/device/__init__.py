"""The simulated KVM: one class for each kind of descriptor, and the TDX sub-commands.

Nothing here touches the machine; the caller's memory is reached through `plugin.kvm.contract.Memory` only.
"""

from plugin.kvm.device.record import TdRecord
from plugin.kvm.device.simulated import SimulatedKvm

__all__ = ["SimulatedKvm", "TdRecord"]
