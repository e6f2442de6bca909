"""A simulated KVM called from Python, without a process: the ioctls by which a VMM makes a TD."""

from __future__ import annotations

from plugin.cpuid.leaf import Leaf, Registers
from plugin.kvm.contract import BadAddress, Reply
from plugin.kvm.device.simulated import SimulatedKvm
from plugin.kvm.device.vm import Vm
from plugin.kvm.dialects.td import TdRecord, read_cpuid
from plugin.kvm.dialects.upstream import UpstreamTdx
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.cpuid import entry, pack
from plugin.kvm.uapi.ioctls import served_by

_COMMAND, _DATA = 0x1000, 0x2000
_ENCRYPT_OP = next(number for number, row in served_by("vm").items() if row.name == "KVM_MEMORY_ENCRYPT_OP")


class Buffer:
    """The memory of a caller that has one buffer, by its address."""

    def __init__(self, address: int, content: bytes) -> None:
        self._address = address
        self._content = bytearray(content)

    def _at(self, address: int, size: int) -> slice:
        start = address - self._address
        if not 0 <= start <= len(self._content) - size:
            raise BadAddress(address, size)
        return slice(start, start + size)

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of the buffer. Raises BadAddress."""
        return bytes(self._content[self._at(address, size)])

    def write(self, address: int, data: bytes) -> None:
        """Replace bytes of the buffer. Raises BadAddress."""
        self._content[self._at(address, len(data))] = data


def upstream(kvm: SimulatedKvm) -> UpstreamTdx:
    """Return what a simulated KVM without faults offers VMMs that talk to it as Linux has it."""
    assert isinstance(kvm.host.tdx, UpstreamTdx)
    return kvm.host.tdx


def init_td(kvm: SimulatedKvm, attributes: int, xfam: int, cpuid: dict[Leaf, Registers]) -> TdRecord:
    """Create a TD: KVM_CREATE_VM and KVM_TDX_INIT_VM with these choices. Raises Rejected as KVM would."""
    vm = Vm(kvm.host, c.X86_TDX_VM)
    command = s.TDX_CMD.pack(c.TDX_INIT_VM, 0, _DATA, 0).ljust(_DATA - _COMMAND, b"\0")
    head = s.TDX_INIT_VM.pack(attributes, xfam, b"", b"", b"", b"", len(cpuid), 0)
    memory = Buffer(_COMMAND, command + head + pack(entry(leaf, value) for leaf, value in cpuid.items()))
    reply = vm.ioctl(_ENCRYPT_OP, _COMMAND, memory)
    assert isinstance(reply, Reply)
    assert reply.commit is not None
    reply.commit()
    assert vm.td is not None
    return vm.td.record


def td_cpuid(record: TdRecord) -> dict[Leaf, Registers]:
    """What KVM_TDX_GET_CPUID tells of a TD."""
    return {one.leaf: one.registers for one in read_cpuid(record.td, record.gpaw)}
