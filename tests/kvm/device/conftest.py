"""A VMM in miniature: it has memory, opens the simulated /dev/kvm and calls ioctls by name."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from plugin.cpuid import Leaf, Registers
from plugin.kvm.contract import BadAddress, Device, NewFile, Rejected, Reply, Wait
from plugin.kvm.device import SimulatedKvm
from plugin.kvm.uapi import proposal as p
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.capabilities import NUMBERS as CAPABILITIES
from plugin.kvm.uapi.cpuid import Entry, entry, pack, unpack
from plugin.kvm.uapi.ioctls import NUMBERS
from plugin.kvm.uapi.layout import Layout
from plugin.tdx_module import ModuleVersion, Platform, TdxHost, load_module, load_platform
from tests.kvm.device.observed import state

BASE = 0x7F0000000000
SIZE = 1 << 18
COMMANDS = {name.removeprefix("KVM_TDX_"): number for number, name in p.SUBCOMMANDS.items()}
WIDTH_48 = Registers(eax=48 << 16)


class CallerMemory:
    """The memory of a process that has mapped one range and nothing else."""

    def __init__(self) -> None:
        self.bytes = bytearray(SIZE)

    def _offset(self, address: int, size: int) -> int:
        if not BASE <= address <= BASE + SIZE - size:
            raise BadAddress(address, size)
        return address - BASE

    def read(self, address: int, size: int) -> bytes:
        at = self._offset(address, size)
        return bytes(self.bytes[at : at + size])

    def write(self, address: int, data: bytes) -> None:
        at = self._offset(address, len(data))
        self.bytes[at : at + len(data)] = data


class Failed(Exception):
    """An ioctl returned -1; `number` is errno."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"{errno.errorcode[number]}: {why}")
        self.number = number


class Vmm:
    """Calls ioctls as a process does: an error is `Failed`, a new descriptor is the device behind it.

    Each call is made twice. The first time a signal overtakes the answer, and nothing may have changed then.
    """

    def __init__(
        self, module: ModuleVersion, platform: Platform, dialect: str = "upstream", faults: Sequence[str] = ()
    ) -> None:
        self._simulates = TdxHost(module, platform)
        self._dialect = dialect
        self._faults = faults
        self.start_over()

    def start_over(self) -> None:
        """Forget everything: a new process on a new host."""
        self.warnings: list[str] = []
        self.kvm = SimulatedKvm(self._simulates, self.warnings.append, dialect=self._dialect, faults=self._faults)
        self.memory = CallerMemory()
        self._used = 0
        self.devices: list[Device] = []
        system = self.kvm.open().handler
        assert system is not None
        self.system: Device = system

    def place(self, data: bytes) -> int:
        """Put bytes into fresh memory, page aligned; return the address."""
        address = BASE + self._used
        self.memory.write(address, data)
        self._used += (len(data) + 4096) & ~4095
        return address

    def overtaken(self, device: Device, request: int, argument: int) -> None:
        """Make a call whose answer a signal drops: memory is put back, and all is as before."""
        devices = [self.system, device, *self.devices]
        before = [*state(self.kvm, devices), list(self.warnings)]
        memory = bytes(self.memory.bytes)
        with suppress(Rejected, BadAddress):
            device.ioctl(request, argument, self.memory)
        self.memory.bytes[:] = memory
        assert [*state(self.kvm, devices), list(self.warnings)] == before

    def answer(self, device: Device, request: int, argument: int) -> Reply | NewFile | Wait:
        self.overtaken(device, request, argument)
        try:
            return device.ioctl(request, argument, self.memory)
        except Rejected as rejected:
            if rejected.commit is not None:
                rejected.commit()
            raise Failed(rejected.errno, rejected.why) from rejected
        except BadAddress as bad:
            raise Failed(errno.EFAULT, str(bad)) from bad

    @contextmanager
    def fails(self, number: int) -> Iterator[None]:
        """Expect an ioctl inside to return -1 with this errno."""
        with pytest.raises(Failed) as failed:
            yield
        assert failed.value.number == number, str(failed.value)

    def ioctl(self, device: Device, name: str, argument: int = 0) -> int:
        answer = self.answer(device, NUMBERS[name], argument)
        assert isinstance(answer, Reply)
        if answer.commit is not None:
            answer.commit()
        return answer.value

    def open(self, device: Device, name: str, argument: int = 0) -> Device:
        answer = self.answer(device, NUMBERS[name], argument)
        assert isinstance(answer, NewFile)
        assert answer.handler is not None
        if answer.commit is not None:
            answer.commit()
        if answer.handler.kind == "vcpu":
            answer.handler.attached(mmap.mmap(-1, answer.size))
        self.devices.append(answer.handler)
        return answer.handler

    def call(self, device: Device, name: str, layout: Layout, *values: int | bytes) -> int:
        """Call with a pointer to a structure."""
        return self.ioctl(device, name, self.place(layout.pack(*values)))

    def back(self, address: int, layout: Layout) -> tuple[int, ...]:
        return layout.unpack(self.memory.read(address, layout.size))

    # TDs

    def td_vm(self) -> Device:
        """A VM of type 5 with split interrupt chip, TD not initialised."""
        vm = self.open(self.system, "KVM_CREATE_VM", 5)
        self.enable(vm, "SPLIT_IRQCHIP", 24)
        return vm

    def enable(self, vm: Device, capability: str, argument: int = 0) -> int:
        values = CAPABILITIES[capability], 0, argument.to_bytes(8, "little"), b""
        return self.call(vm, "KVM_ENABLE_CAP", s.ENABLE_CAP, *values)

    def command(self, device: Device, name: str, data: int = 0, flags: int = 0, hw_error: int = 0) -> int:
        """Call a TDX sub-command; return the address of its struct kvm_tdx_cmd."""
        address = self.place(s.TDX_CMD.pack(COMMANDS[name], flags, data, hw_error))
        self.ioctl(device, "KVM_MEMORY_ENCRYPT_OP", address)
        return address

    def capabilities(self, vm: Device, room: int = 256) -> tuple[int, int, list[Entry]]:
        """Return supported ATTRIBUTES, XFAM and the configurable entries."""
        address = self.place(s.TDX_CAPABILITIES.pack(0, 0, 0, 0, 0, 0, b"", room, 0) + bytes(room * 40))
        self.command(vm, "CAPABILITIES", address)
        attributes, xfam, *_, count, _ = self.back(address, s.TDX_CAPABILITIES)
        return attributes, xfam, unpack(self.memory.read(address + s.TDX_CAPABILITIES.size, count * 40))

    @staticmethod
    def init_data(
        entries: list[Entry] | None = None,
        attributes: int = 0,
        xfam: int = 3,
        reserved: bytes = b"",
        padding: int = 0,
        count: int | None = None,
    ) -> bytes:
        """struct kvm_tdx_init_vm; without entries, with the one that has to be there."""
        entries = [entry(Leaf(0x80000008), WIDTH_48)] if entries is None else entries
        count = len(entries) if count is None else count
        return s.TDX_INIT_VM.pack(attributes, xfam, b"", b"", b"", reserved, count, padding) + pack(entries)

    def init_vm(self, vm: Device, data: bytes | None = None) -> int:
        return self.command(vm, "INIT_VM", self.place(self.init_data() if data is None else data))

    def initialised_td(self) -> Device:
        vm = self.td_vm()
        self.init_vm(vm)
        return vm

    def td_vcpu(self, vm: Device, number: int = 0) -> Device:
        """A vCPU with X2APIC in KVM's view of its CPUID, not initialised in the module."""
        vcpu = self.open(vm, "KVM_CREATE_VCPU", number)
        self.set_cpuid2(vcpu, [entry(Leaf(1), Registers(ecx=1 << 21))])
        return vcpu

    def set_cpuid2(self, vcpu: Device, entries: list[Entry]) -> int:
        return self.ioctl(vcpu, "KVM_SET_CPUID2", self.place(s.CPUID2.pack(len(entries), 0) + pack(entries)))

    def get_cpuid(self, vcpu: Device, room: int = 256) -> list[Entry]:
        address = self.place(s.CPUID2.pack(room, 0) + bytes(room * 40))
        self.command(vcpu, "GET_CPUID", address)
        count, _ = self.back(address, s.CPUID2)
        return unpack(self.memory.read(address + s.CPUID2.size, count * 40))

    # The 2024 proposal

    def config_cpuid(self, vm: Device, room: int = 256) -> dict[Leaf, Registers]:
        """KVM_TDX_GET_CONFIG_CPUID's masks."""
        address = self.place(s.CPUID2.pack(room, 0) + bytes(room * 40))
        self.command(vm, "GET_CONFIG_CPUID", address)
        return {entry.leaf: entry.registers for entry in self.entries_at(address)}

    def entries_at(self, address: int) -> list[Entry]:
        """The entries of struct kvm_cpuid2."""
        count, _ = self.back(address, s.CPUID2)
        return unpack(self.memory.read(address + s.CPUID2.size, count * 40))

    def ask(self, leaves: Sequence[tuple[int, int, int, int]], room: int = 256, reserved: bytes = b"") -> int:
        """Place struct kvm_tdx_init_vcpu_cpuid for leaves given as function, index, flags, padding."""
        wanted = self.place(b"".join(p.TDX_CPUID_LEAF.pack(*leaf) for leaf in leaves))
        head = p.TDX_INIT_VCPU_CPUID_HEAD.pack(wanted, len(leaves), reserved, room, 0)
        return self.place(head + bytes(room * 40))

    def init_vcpu_cpuid(self, vcpu: Device, leaves: Sequence[tuple[int, int, int, int]]) -> list[Entry]:
        address = self.ask(leaves)
        self.command(vcpu, "INIT_VCPU_CPUID", address)
        return self.entries_at(address + p.TDX_INIT_VCPU_CPUID_HEAD.offset("cpuid_nent"))

    def private_memory(self, vm: Device, gpa: int, size: int) -> None:
        """A slot with a guest_memfd, all of it private."""
        values = 0, 4, gpa, size, BASE, 0, 9, 0, b""
        self.call(vm, "KVM_SET_USER_MEMORY_REGION2", s.USERSPACE_MEMORY_REGION2, *values)
        self.call(vm, "KVM_SET_MEMORY_ATTRIBUTES", s.MEMORY_ATTRIBUTES, gpa, size, 8, 0)


@pytest.fixture
def module() -> ModuleVersion:
    return load_module("1.5.05")


@pytest.fixture
def platform() -> Platform:
    return load_platform("sapphire-rapids")


@pytest.fixture
def vmm(module: ModuleVersion, platform: Platform) -> Vmm:
    return Vmm(module, platform)
