"""A VM's descriptor: memory, interrupts, vCPUs, and the TD behind it."""

from __future__ import annotations

import errno
import time

from plugin.cpuid.leaf import Leaf
from plugin.kvm.contract import NewFile, Rejected, Reply
from plugin.kvm.device import capabilities
from plugin.kvm.device.descriptor import Call, Descriptor
from plugin.kvm.device.guest_memory import GuestMemory, Slot
from plugin.kvm.device.host import KvmHost
from plugin.kvm.device.vcpu import Vcpu
from plugin.kvm.dialects.td import TdState
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.capabilities import NUMBERS
from plugin.kvm.uapi.capabilities import name as capability_name

MAX_RESERVED_PINS = 24  # KVM_MAX_NR_RESERVED_IOAPIC_PINS
MAX_IRQ_ROUTES = 4096
MAX_EVENTFDS = 1 << 16
"""So many eventfds of each kind a VM has here. In the kernel it is the VMM's memory, and not ours, that they take."""
_PIECE = 1 << 20  # of a bitmap: it may be 256 MiB long
_WIDTHS = Leaf(0x80000008)
_SPLIT_IRQCHIP = NUMBERS["SPLIT_IRQCHIP"]
_BUS_CYCLES = NUMBERS["X86_APIC_BUS_CYCLES_NS"]
_MAX_VCPU_ID = NUMBERS["MAX_VCPU_ID"]
_QUIRKS = NUMBERS["DISABLE_QUIRKS"], NUMBERS["DISABLE_QUIRKS2"]


class Vm(Descriptor):
    """The descriptor KVM_CREATE_VM returns (kvm_vm_ioctl and kvm_arch_vm_ioctl)."""

    kind: str = "vm"

    def __init__(self, host: KvmHost, vm_type: int) -> None:
        super().__init__(host.warnings)
        self.host = host
        self.type = vm_type
        self.memory = GuestMemory(host.platform.native_leaf(_WIDTHS).eax & 0xFF or 36)
        self.irqchip = ""
        """"", "split" or "kernel"."""
        self.vcpus: dict[int, Vcpu] = {}
        self.td: TdState | None = None
        self.tsc_khz = host.platform.tsc_khz
        """TSC frequency of new vCPUs in kHz."""
        self.capabilities: dict[int, int] = {}
        """First argument of every KVM_ENABLE_CAP."""
        self.boot_cpu_id = 0
        self._eventfds: set[tuple[int, int, int, int]] = set()
        self._irqfds: dict[int, int] = {}
        self._clock_offset = 0
        self._irqchips: dict[int, bytes] = {}
        self._pit: bytes | None = None

    @property
    def is_td(self) -> bool:
        """Whether this VM was created as a TD; its state is protected from the VMM."""
        return self.type == c.X86_TDX_VM

    @property
    def disabled_quirks(self) -> int:
        """The KVM_X86_QUIRK_ bits that the VMM turned off."""
        first, second = (self.capabilities.get(number, 0) for number in _QUIRKS)
        return first | second

    @property
    def created_vcpus(self) -> int:
        """How many vCPUs exist."""
        return len(self.vcpus)

    def became(self, td: TdState) -> None:
        """Take the TD that KVM_TDX_INIT_VM made."""
        self.td = td
        self.host.note(td.record)

    def populatable(self, first: int, end: int) -> int:
        """Return how far [first, end) is private memory in slots with a guest_memfd: the first address that is not."""
        return self.memory.populatable(first, end)

    def memory_encrypt_op(self, call: Call) -> Reply:
        """Pass a sub-command to the TDX dialect. ENOTTY if this VM is not a TD."""
        if not self.is_td:
            raise call.reject(errno.ENOTTY, "the VM is not a TD (it was not created with type 5)")
        refusals = self.host.refusals
        try:
            return refusals.granted(self.host.tdx.vm(self, call.argument, call.memory))
        except Rejected as rejected:
            refusals.refused(rejected)
            raise

    def check_extension(self, call: Call) -> Reply:
        """Answer a capability's value for this VM, 0 if it is unknown; never fails."""
        return Reply(capabilities.value(call.argument, self.host.supported.xsave_size, self.type))

    def has_device_attr(self, call: Call) -> Reply:
        """Say whether the VM has an attribute: ENXIO, it has none here."""
        call.argument_struct()
        raise call.reject(errno.ENXIO, "VM attributes are not simulated")

    # vCPUs

    def create_vcpu(self, call: Call) -> NewFile:
        """Create a vCPU (kvm_vm_ioctl_create_vcpu, tdx_vcpu_create).

        EINVAL for an id out of range, too many vCPUs, or a TD without split interrupt chip; EIO for a TD that is not
        initialised or is finalised; EEXIST for an id that exists.
        """
        number = call.argument
        limit = capabilities.value(NUMBERS["MAX_VCPUS"], 0, self.type)
        ids = self.capabilities.get(_MAX_VCPU_ID) or c.MAX_VCPU_IDS
        if number >= ids or self.created_vcpus >= limit:
            raise call.reject(errno.EINVAL, f"vCPU {number}: ids end at {ids}, the VM at {limit} vCPUs")
        td = self.td
        if self.is_td:
            if td is None or td.record.finalised:
                raise call.reject(errno.EIO, "a TD's vCPUs are created between KVM_TDX_INIT_VM and KVM_TDX_FINALIZE_VM")
            if self.irqchip != "split":
                raise call.reject(errno.EINVAL, "a TD needs the split interrupt chip (KVM_CAP_SPLIT_IRQCHIP)")
        if number in self.vcpus:
            raise call.reject(errno.EEXIST, f"vCPU {number} exists")
        vcpu = Vcpu(self, number)

        def commit() -> None:
            self.vcpus[number] = vcpu
            if td is not None:
                td.record.vcpus += 1

        return NewFile(vcpu, capabilities.MMAP_PAGES * c.PAGE_SIZE, f"kvm-vcpu:{number}", commit)

    def set_boot_cpu_id(self, call: Call) -> Reply:
        """Choose the boot processor. EBUSY once a vCPU exists, EINVAL for an id that no vCPU can have."""
        ids = self.capabilities.get(_MAX_VCPU_ID) or c.MAX_VCPU_IDS
        if self.created_vcpus:
            raise call.reject(errno.EBUSY, "a vCPU exists")
        if call.argument > ids:
            raise call.reject(errno.EINVAL, f"vCPU {call.argument}: ids end at {ids}")
        return Reply(commit=lambda: setattr(self, "boot_cpu_id", call.argument))

    # Memory

    def set_user_memory_region(self, call: Call) -> Reply:
        """Create, move or delete a memory slot; errors as `GuestMemory.check`. No guest_memfd in this one."""
        number, flags, gpa, size, address = call.argument_struct()
        if flags & c.MEM_GUEST_MEMFD:
            raise call.reject(errno.EINVAL, "a guest_memfd needs KVM_SET_USER_MEMORY_REGION2")
        return self._set_slot(number, Slot(gpa, size, flags, address))

    def set_user_memory_region2(self, call: Call) -> Reply:
        """Create, move or delete a memory slot, with a guest_memfd if flagged; errors as `GuestMemory.check`."""
        number, flags, gpa, size, address, offset, *_ = call.argument_struct()
        if flags & c.MEM_GUEST_MEMFD and not self.is_td:
            raise call.reject(errno.EINVAL, "only a TD has private memory here")
        return self._set_slot(number, Slot(gpa, size, flags, address, offset if flags & c.MEM_GUEST_MEMFD else 0))

    def _set_slot(self, number: int, slot: Slot) -> Reply:
        self.memory.check(number, slot, protected=self.is_td, spaces=1 if self.is_td else 2)
        return Reply(commit=lambda: self.memory.set(number, slot))

    def create_guest_memfd(self, call: Call) -> NewFile:
        """Create a file for private memory. EINVAL for flags, or a size that is 0 or no multiple of a page."""
        size, flags, _ = call.argument_struct()
        if not self.is_td or flags:
            raise call.reject(errno.EINVAL, f"flags {flags:#x} must be 0, and only a TD has private memory here")
        if not size or not c.page_aligned(size) or size >= 1 << 63:
            raise call.reject(errno.EINVAL, f"size {size:#x} must be a positive multiple of the page size")
        return NewFile(None, size, "kvm-gmem")

    def set_memory_attributes(self, call: Call) -> Reply:
        """Make a range of guest physical addresses private or shared.

        EINVAL for flags, unknown attributes, or a range that is empty, unaligned or wraps
        (kvm_vm_ioctl_set_mem_attributes).
        """
        address, size, attributes, flags = call.argument_struct()
        allowed = c.MEMORY_ATTRIBUTE_PRIVATE if self.is_td else 0
        if flags or attributes & ~allowed:
            raise call.reject(errno.EINVAL, f"attributes {attributes:#x} (of {allowed:#x}) or flags {flags:#x}")
        if not size or address + size >= 1 << 64 or not c.page_aligned(address, size):
            raise call.reject(errno.EINVAL, f"{address:#x}, {size:#x} bytes: empty, unaligned or wraps")
        return Reply(commit=lambda: self.memory.set_private(address, address + size, private=bool(attributes)))

    def get_dirty_log(self, call: Call) -> Reply:
        """Say that no page is dirty: nothing runs here. ENOENT unless the slot exists and logs."""
        number, _, bitmap = call.argument_struct()
        slot = self.memory.slots.get(number)
        if slot is None or not slot.flags & c.MEM_LOG_DIRTY_PAGES:
            raise call.reject(errno.ENOENT, f"slot {number} does not log dirty pages")
        size = (slot.size // c.PAGE_SIZE + 63) // 64 * 8
        clean = bytes(min(size, _PIECE))
        for at in range(0, size, _PIECE):
            call.memory.write(bitmap + at, clean[: size - at])
        return Reply()

    def set_tss_addr(self, call: Call) -> Reply:
        """Set the task state segment's place. EINVAL above 4 GiB less three pages."""
        if call.argument > (1 << 32) - 3 * c.PAGE_SIZE:
            raise call.reject(errno.EINVAL, f"{call.argument:#x} leaves no room for three pages below 4 GiB")
        return Reply()

    def set_identity_map_addr(self, call: Call) -> Reply:
        """Set the identity map's place. EINVAL once a vCPU exists."""
        call.word()
        if self.created_vcpus:
            raise call.reject(errno.EINVAL, "a vCPU exists")
        return Reply()

    # Interrupts and events

    def create_irqchip(self, call: Call) -> Reply:
        """Create the whole interrupt chip. EEXIST if there is one; EINVAL once a vCPU exists, or for a TD."""
        if self.irqchip:
            raise call.reject(errno.EEXIST, "there is an interrupt chip")
        if self.created_vcpus or self.is_td:
            raise call.reject(errno.EINVAL, "not once a vCPU exists, and never for a TD (use KVM_CAP_SPLIT_IRQCHIP)")
        return Reply(commit=lambda: setattr(self, "irqchip", "kernel"))

    def _kernel_irqchip(self, call: Call) -> None:
        if self.irqchip != "kernel":
            raise call.reject(errno.ENXIO, "there is no interrupt chip in the kernel")

    def get_irqchip(self, call: Call) -> Reply:
        """Write a chip's state as it was set. ENXIO without chip in the kernel, EINVAL for a chip that is not there."""
        (state,) = call.argument_struct()
        self._kernel_irqchip(call)
        chip = int.from_bytes(state[:4], "little")
        if chip > 2:
            raise call.reject(errno.EINVAL, f"there is no chip {chip}")
        call.write(self._irqchips.get(chip, state[:8] + bytes(s.IRQCHIP.size - 8)))
        return Reply()

    def set_irqchip(self, call: Call) -> Reply:
        """Keep a chip's state. Errors as `get_irqchip`."""
        (state,) = call.argument_struct()
        self._kernel_irqchip(call)
        chip = int.from_bytes(state[:4], "little")
        if chip > 2:
            raise call.reject(errno.EINVAL, f"there is no chip {chip}")
        return Reply(commit=lambda: self._irqchips.__setitem__(chip, state))

    def irq_line(self, call: Call) -> Reply:
        """Set an interrupt line; with a split chip, by its route. ENXIO without chip (kvm_vm_ioctl_irq_line)."""
        self._line(call)
        return Reply()

    def irq_line_status(self, call: Call) -> Reply:
        """Set an interrupt line and write back that it was delivered. ENXIO without chip."""
        call.write(s.IRQ_LEVEL.pack(self._line(call), 1))
        return Reply()

    def _line(self, call: Call) -> int:
        line: int
        line, _ = call.argument_struct()
        if not self.irqchip:
            raise call.reject(errno.ENXIO, "there is no interrupt chip")
        return line

    def set_gsi_routing(self, call: Call) -> Reply:
        """Replace all interrupt routes. EINVAL without interrupt chip, for flags, or more than 4096 routes."""
        count, flags = call.argument_struct()
        if not self.irqchip or flags or count > MAX_IRQ_ROUTES:
            raise call.reject(errno.EINVAL, f"{count} routes, flags {flags:#x}, chip {self.irqchip or 'none'}")
        if count:
            call.memory.read(call.argument + s.IRQ_ROUTING.size, count * s.IRQ_ROUTING_ENTRY.size)
        return Reply()

    def signal_msi(self, call: Call) -> Reply:
        """Deliver a message-signalled interrupt; 1 = a vCPU took it. EINVAL without interrupt chip or for flags."""
        *_, flags, _, _ = call.argument_struct()
        if not self.irqchip or flags:
            raise call.reject(errno.EINVAL, f"flags {flags:#x}, interrupt chip {self.irqchip or 'none'}")
        return Reply(1)

    def irqfd(self, call: Call) -> Reply:
        """Bind an eventfd to an interrupt, or unbind it. EINVAL for flags or resampling on a TD, EBUSY if bound."""
        fd, gsi, flags, *_ = call.argument_struct()
        allowed = c.IRQFD_FLAG_DEASSIGN | (0 if self.is_td else c.IRQFD_FLAG_RESAMPLE)
        if flags & ~allowed or not self.irqchip:
            raise call.reject(errno.EINVAL, f"flags {flags:#x}, interrupt chip {self.irqchip or 'none'}")
        if flags & c.IRQFD_FLAG_DEASSIGN:
            if self._irqfds.get(fd) != gsi:
                return Reply()
            return Reply(commit=lambda: self._irqfds.__delitem__(fd))
        if fd in self._irqfds:
            raise call.reject(errno.EBUSY, f"eventfd {fd} is bound to interrupt {self._irqfds[fd]}")
        if len(self._irqfds) >= MAX_EVENTFDS:
            raise call.reject(errno.ENOMEM, f"{MAX_EVENTFDS} eventfds are bound to interrupts")
        return Reply(commit=lambda: self._irqfds.__setitem__(fd, gsi))

    def ioeventfd(self, call: Call) -> Reply:
        """Signal an eventfd on a guest write, or stop it. EINVAL for flags or length, EEXIST, ENOENT, ENOSPC."""
        match, address, length, _, flags, _ = call.argument_struct()
        known = c.IOEVENTFD_FLAG_DATAMATCH | c.IOEVENTFD_FLAG_PIO | c.IOEVENTFD_FLAG_DEASSIGN
        if flags & ~known or length not in (0, 1, 2, 4, 8) or address + length >= 1 << 64:
            raise call.reject(errno.EINVAL, f"flags {flags:#x}, {length} bytes at {address:#x}")
        wanted = match if flags & c.IOEVENTFD_FLAG_DATAMATCH else -1
        key = (flags & c.IOEVENTFD_FLAG_PIO, address, length, wanted)
        if not flags & c.IOEVENTFD_FLAG_DEASSIGN:
            if key in self._eventfds:
                raise call.reject(errno.EEXIST, f"{address:#x} has an eventfd")
            if len(self._eventfds) >= MAX_EVENTFDS:
                raise call.reject(errno.ENOSPC, f"{MAX_EVENTFDS} addresses have eventfds")
            return Reply(commit=lambda: self._eventfds.add(key))
        if key not in self._eventfds:
            raise call.reject(errno.ENOENT, f"{address:#x} has no eventfd")
        return Reply(commit=lambda: self._eventfds.discard(key))

    def create_device(self, call: Call) -> Reply:
        """Create an in-kernel device: ENODEV, there is none."""
        device, _, _ = call.argument_struct()
        raise call.reject(errno.ENODEV, f"device type {device} is not simulated")

    def create_pit2(self, call: Call) -> Reply:
        """Create the interval timer. ENOENT without interrupt chip in the kernel, EEXIST if there is one."""
        call.argument_struct()
        if self.irqchip != "kernel":
            raise call.reject(errno.ENOENT, "there is no interrupt chip in the kernel")
        if self._pit is not None:
            raise call.reject(errno.EEXIST, "there is a timer")
        return Reply(commit=lambda: setattr(self, "_pit", bytes(s.PIT_STATE2.size)))

    def get_pit2(self, call: Call) -> Reply:
        """Write the timer's state as it was set. ENXIO without timer."""
        if self._pit is None:
            raise call.reject(errno.ENXIO, "there is no timer")
        call.write(self._pit)
        return Reply()

    def set_pit2(self, call: Call) -> Reply:
        """Keep the timer's state. ENXIO without timer."""
        (state,) = call.argument_struct()
        if self._pit is None:
            raise call.reject(errno.ENXIO, "there is no timer")
        return Reply(commit=lambda: setattr(self, "_pit", state))

    def reinject_control(self, call: Call) -> Reply:
        """Choose what happens to lost timer ticks. ENXIO without timer."""
        if self._pit is None:
            raise call.reject(errno.ENXIO, "there is no timer")
        return Reply()

    # Clocks and capabilities

    def set_tsc_khz(self, call: Call) -> Reply:
        """Set the TSC frequency of new vCPUs in kHz; 0 = the platform's. EINVAL above 32 bits or once a vCPU exists."""
        khz = call.argument & 0xFFFFFFFF
        if khz >= 1 << 31 or self.created_vcpus:
            raise call.reject(errno.EINVAL, f"{khz} kHz is too much, or a vCPU exists")
        return Reply(commit=lambda: setattr(self, "tsc_khz", khz or self.host.platform.tsc_khz))

    def get_tsc_khz(self, call: Call) -> Reply:
        """Answer the TSC frequency of new vCPUs in kHz."""
        return Reply(self.tsc_khz)

    def get_clock(self, call: Call) -> Reply:
        """Write the guest clock in ns, with the host's real time and TSC."""
        now = time.monotonic_ns()
        tsc = now * self.host.platform.tsc_khz // 1_000_000
        flags = c.CLOCK_TSC_STABLE | c.CLOCK_REALTIME | c.CLOCK_HOST_TSC
        clock = (now + self._clock_offset) % (1 << 64)
        call.write(s.CLOCK_DATA.pack(clock, flags, 0, time.time_ns(), tsc % (1 << 64), b""))
        return Reply()

    def set_clock(self, call: Call) -> Reply:
        """Set the guest clock in ns. EINVAL for unknown flags."""
        clock, flags, *_ = call.argument_struct()
        if flags & ~(c.CLOCK_TSC_STABLE | c.CLOCK_REALTIME | c.CLOCK_HOST_TSC):
            raise call.reject(errno.EINVAL, f"flags {flags:#x}")
        return Reply(commit=lambda: setattr(self, "_clock_offset", clock - time.monotonic_ns()))

    def enable_cap(self, call: Call) -> Reply:
        """Turn a capability on (kvm_vm_ioctl_enable_cap).

        EINVAL: flags, an unknown capability, argument bits it does not have. EEXIST: a second interrupt chip, or one
        after a vCPU. ENXIO: APIC bus clock without interrupt chip.
        """
        number, flags, raw, _ = call.argument_struct()
        value = int.from_bytes(raw[:8], "little")
        name = capability_name(number)
        if flags:
            raise call.reject(errno.EINVAL, f"{name}: flags must be 0")
        if number == _SPLIT_IRQCHIP:
            return self._split_irqchip(call, value)
        if number == _BUS_CYCLES:
            if not value or value > 0xFFFFFFFF or self.created_vcpus:
                raise call.reject(errno.EINVAL, f"{name}: {value} ns, or a vCPU exists")
            if not self.irqchip:
                raise call.reject(errno.ENXIO, f"{name}: there is no interrupt chip")
        elif number == _MAX_VCPU_ID:
            now = self.capabilities.get(number) or value
            if not self.boot_cpu_id <= value <= c.MAX_VCPU_IDS or now != value:
                raise call.reject(errno.EINVAL, f"{name}: {value}; it is {now}, and vCPU {self.boot_cpu_id} boots")
        elif number not in capabilities.SETTABLE:
            raise call.reject(errno.EINVAL, f"{name} cannot be enabled on a VM here")
        elif value & ~capabilities.SETTABLE[number]:
            raise call.reject(
                errno.EINVAL, f"{name}: argument {value:#x} has bits outside {capabilities.SETTABLE[number]:#x}"
            )
        return Reply(commit=lambda: self.capabilities.__setitem__(number, value))

    def _split_irqchip(self, call: Call, pins: int) -> Reply:
        if pins > MAX_RESERVED_PINS:
            raise call.reject(errno.EINVAL, f"{pins} reserved pins; at most {MAX_RESERVED_PINS} are possible")
        if self.irqchip or self.created_vcpus:
            raise call.reject(errno.EEXIST, "there is an interrupt chip or a vCPU")
        return Reply(commit=lambda: setattr(self, "irqchip", "split"))
