"""The simulated KVM: one class for each kind of descriptor.

Nothing here touches the machine; the caller's memory is reached through `plugin.kvm.contract.Memory` only.
"""

from plugin.kvm.device.simulated import SimulatedKvm

__all__ = ["SimulatedKvm"]
