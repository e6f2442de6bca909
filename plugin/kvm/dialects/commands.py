"""KVM_MEMORY_ENCRYPT_OP of a TD: what all dialects have in common (arch/x86/kvm/vmx/tdx.c).

A dialect is one way of talking to KVM about a TD's CPUID; each has a file of its own (`upstream`, `proposal`). They
differ in which bits they let a VMM configure and in how they tell what the TD has. The order of the checks is the
kernel's, because it decides which error a VMM sees.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping

from plugin.cpuid.leaf import ZERO, Leaf, Registers
from plugin.kvm.contract import Memory, Rejected, Reply
from plugin.kvm.dialects.td import TdRecord, TdState
from plugin.kvm.policy import (
    FIVE_LEVEL_WIDTH,
    SUPPORTED_TD_ATTRS,
    UNSUPPORTED_CPUID,
    WIDTH_LEAF,
    WIDTHS,
    for_module,
    guest_width,
)
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.cpuid import Entry, unpack
from plugin.tdx_module import ModuleVersion, Platform, SeamcallError, TdParams, attribute_names, init_td, xfam_names
from plugin.typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugin.kvm.dialects.contract import TdVcpu, TdVm

USER_TDVMCALLINFO_1_R11 = 1 << 1
"""Optional hypercalls that KVM forwards to the VMM: SetupEventNotifyInterrupt."""

_OPERAND_INVALID, _STATUS_CLASS = 0xC000010000000000, 0xFFFFFFFF00000000
_X2APIC = 1 << 21


class Unknown(Rejected):
    """A command without a name: VMMs call such to find out what KVM has, so no refusal to speak of."""


class Command:
    """One struct kvm_tdx_cmd in flight, with the memory of the caller."""

    __slots__ = ("_at", "data", "flags", "id", "memory", "name", "named")

    def __init__(self, argument: int, memory: Memory, names: Mapping[int, str] = c.TDX_SUBCOMMANDS) -> None:
        """Read the command at `argument` (tdx_get_cmd). Raises BadAddress; Rejected EINVAL if hw_error is not 0."""
        self._at = argument
        self.memory = memory
        self.id, self.flags, self.data, hw_error = s.TDX_CMD.unpack(memory.read(argument, s.TDX_CMD.size))
        self.name = names.get(self.id, f"TDX sub-command {self.id:#x}")
        self.named = self.id in names
        if hw_error:
            raise self.reject(errno.EINVAL, "hw_error must be 0 on entry")

    def reject(self, number: int, why: str) -> Rejected:
        """Return the exception for errno `number`."""
        return Rejected(number, f"{self.name}: {why}")

    def no_flags(self, allowed: int = 0) -> None:
        """Raise Rejected EINVAL if a flag is set that is not allowed."""
        if self.flags & ~allowed:
            raise self.reject(errno.EINVAL, f"flags {self.flags:#x}: only {allowed:#x} may be set")

    def unknown(self) -> Rejected:
        """Return the EINVAL for a sub-command that this descriptor does not have."""
        why = f"{self.name} does not exist on this descriptor"
        return Rejected(errno.EINVAL, why) if self.named else Unknown(errno.EINVAL, why)

    def write_back(self, hw_error: int = 0) -> None:
        """Copy the command back to the caller, with the SEAMCALL's status. Raises BadAddress."""
        self.memory.write(self._at, s.TDX_CMD.pack(self.id, self.flags, self.data, hw_error))


def find_entry(entries: Iterable[Entry], function: int, index: int) -> Entry | None:
    """Return the first entry of that leaf; its index counts only if it says so (kvm_find_cpuid_entry2)."""
    for entry in entries:
        significant = entry.flags & c.CPUID_FLAG_SIGNIFCANT_INDEX
        if entry.function == function and (not significant or entry.subleaf == index):
            return entry
    return None


class TdxCommands:
    """The sub-commands of every dialect; a dialect adds its own to the two tables, and says what is configurable."""

    interface: str
    takes_cpuid2 = True
    names: Mapping[int, str] = c.TDX_SUBCOMMANDS

    def __init__(self, module: ModuleVersion, platform: Platform, *, xfam_of_kvm: int, five_level_ept: bool) -> None:
        self.module = module
        self._platform = platform
        self._five_level_ept = five_level_ept
        self.attributes = self._offered(SUPPORTED_TD_ATTRS, module.attributes_on(platform), module.attributes_fixed1)
        """Supported ATTRIBUTES (tdx_get_supported_attrs); 0 if KVM lacks one that the module forces."""
        self.xfam = self._offered(xfam_of_kvm, module.xfam_supported(platform), module.xfam_fixed1)
        """Supported XFAM (tdx_get_supported_xfam); 0 if KVM lacks one that the module forces."""
        self.filtered = {
            leaf: hidden & mask
            for leaf, hidden in UNSUPPORTED_CPUID.items()
            if (mask := module.configurable.get(leaf, ZERO)) & hidden != ZERO
        }
        """Bits the module can configure and KVM does not let a VMM have."""
        self.vm_commands: dict[int, Callable[[TdVm, Command], Reply]] = {
            c.TDX_INIT_VM: self._init_vm,
            c.TDX_FINALIZE_VM: self._finalize_vm,
        }
        self.vcpu_commands: dict[int, Callable[[TdVcpu, TdState, Command], Reply]] = {
            c.TDX_INIT_VCPU: self._init_vcpu,
            c.TDX_INIT_MEM_REGION: self._init_mem_region,
        }

    @staticmethod
    def _offered(kvm: int, module: int, fixed1: int) -> int:
        return 0 if fixed1 & ~kvm else kvm & module

    def config(self, command: Command, entries: list[Entry]) -> dict[Leaf, Registers]:
        """Return TD_PARAMS.CPUID_CONFIG[] for KVM_TDX_INIT_VM's entries. Raises Rejected."""
        raise NotImplementedError

    # On the VM

    def vm(self, vm: TdVm, argument: int, memory: Memory) -> Reply:
        """Answer a sub-command on a TD's descriptor; EINVAL for an id that it does not have (tdx_vm_ioctl).

        The command is written back after KVM_TDX_INIT_VM and KVM_TDX_FINALIZE_VM, failed or not.
        """
        command = Command(argument, memory, self.names)
        handler = self.vm_commands.get(command.id)
        if handler is None:
            raise command.unknown()
        return handler(vm, command)

    def write_capabilities(self, command: Command, entries: int, padding: int, behind: bytes) -> Reply:
        """Write struct kvm_tdx_capabilities with that many entries behind it.

        EIO: the module forces an ATTRIBUTES or XFAM bit that KVM does not know.
        """
        if not self.attributes or not self.xfam:
            raise command.reject(errno.EIO, "the module forces ATTRIBUTES or XFAM bits that KVM does not support")
        head = s.TDX_CAPABILITIES.pack(
            self.attributes, self.xfam, 0, USER_TDVMCALLINFO_1_R11, 0, 0, b"", entries, padding
        )
        command.memory.write(command.data, head + behind)
        return Reply()

    def _init_vm(self, vm: TdVm, command: Command) -> Reply:
        """Create the TD (tdx_td_init, setup_tdparams, __tdx_td_init).

        In this order: EINVAL for a second time or flags; E2BIG for more than 256 entries; EINVAL for reserved fields;
        EBUSY once a vCPU exists; EINVAL for an unsupported ATTRIBUTES or XFAM bit, for a missing or wrong address
        width, for HLE, RTM or WAITPKG, for an entry without a slot, and for what the module refuses, with hw_error.
        EIO if the module fails for another reason.
        """
        try:
            attributes, xfam, entries = self._read_init_vm(vm, command)
            gpaw = self._address_width(command, entries)
            config = self.config(command, entries)
        except Rejected:
            command.write_back()
            raise
        params = TdParams(
            attributes | self.module.attributes_fixed1, xfam | self.module.xfam_fixed1, config, vm.tsc_khz
        )
        try:
            td = init_td(self.module, self._platform, params)
        except SeamcallError as error:
            raise refused_by_module(command, error) from error
        record = TdRecord(self.interface, attributes, xfam, tuple(entries), self.filtered, gpaw, td)
        command.write_back()
        return Reply(commit=lambda: vm.became(TdState(td, record)))

    def _read_init_vm(self, vm: TdVm, command: Command) -> tuple[int, int, list[Entry]]:
        if vm.td is not None:
            raise command.reject(errno.EINVAL, "the TD is initialised already")
        command.no_flags()
        memory = command.memory
        attributes, xfam, _, _, _, reserved, count, padding = s.TDX_INIT_VM.unpack(
            memory.read(command.data, s.TDX_INIT_VM.size)
        )
        if count > c.MAX_CPUID_ENTRIES:
            raise command.reject(errno.E2BIG, f"{count} CPUID entries; at most {c.MAX_CPUID_ENTRIES} are taken")
        size = count * s.CPUID_ENTRY2.size
        entries = unpack(memory.read(command.data + s.TDX_INIT_VM.size, size)) if count else []
        if any(reserved) or padding:
            raise command.reject(errno.EINVAL, "reserved fields and padding must be 0")
        if vm.created_vcpus:  # one whose creation is under way: a whole one comes after INIT_VM only
            raise command.reject(errno.EBUSY, "a vCPU exists; the TD has to be initialised before")
        for what, asked, offered, names in (
            ("ATTRIBUTES", attributes, self.attributes, attribute_names),
            ("XFAM", xfam, self.xfam, xfam_names),
        ):
            if extra := asked & ~offered:
                named = ", ".join(str(name) for name in names(extra))
                raise command.reject(errno.EINVAL, f"{what} {extra:#x} ({named}) is not in the supported {offered:#x}")
        return attributes, xfam, entries

    def _address_width(self, command: Command, entries: list[Entry]) -> int:
        """Take the guest physical address width from 0x80000008 EAX[23:16] (setup_tdparams_eptp_controls)."""
        entry = find_entry(entries, WIDTH_LEAF.number, 0)
        if entry is None:
            raise command.reject(
                errno.EINVAL, "leaf 0x80000008 is missing; its EAX[23:16] is the guest physical address width"
            )
        width = guest_width(entry.registers)
        if width not in WIDTHS:
            raise command.reject(
                errno.EINVAL,
                f"0x80000008 EAX[23:16], the guest physical address width, is {width}; it must be 48 or 52 "
                f"(QEMU derives it from the host's width, which is {self._host_width()} on {self._platform.name})",
            )
        if width == FIVE_LEVEL_WIDTH and not self._five_level_ept:
            raise command.reject(errno.EINVAL, "an address width of 52 needs 5-level EPT, which the platform lacks")
        return width

    def _host_width(self) -> int:
        return self._platform.native_leaf(WIDTH_LEAF).eax & 0xFF

    def place(
        self, command: Command, entries: list[Entry], slots: Mapping[tuple[int, int], Leaf]
    ) -> dict[Leaf, Registers]:
        """Put the entries into slots, given by leaf and sub-leaf (setup_tdparams_cpuids).

        The guest address width is taken out: it is not the module's. Raises Rejected EINVAL for HLE, RTM or WAITPKG
        and for an entry without a slot.
        """
        config = {}
        for (function, index), leaf in slots.items():
            entry = find_entry(entries, function, index)
            if entry is None:
                continue
            if (hidden := entry.registers & UNSUPPORTED_CPUID.get(leaf, ZERO)) != ZERO:
                raise command.reject(
                    errno.EINVAL,
                    f"leaf {leaf}: HLE, RTM and WAITPKG (EBX {hidden.ebx:#x}, ECX {hidden.ecx:#x}) are not for TDs",
                )
            config[leaf] = for_module(leaf, entry.registers)
        if len(config) != len(entries):
            strays = [str(entry.leaf) for entry in entries if (entry.function, entry.subleaf) not in slots]
            what = f"leaves {', '.join(strays)} have no slot" if strays else "entries do not match slots one to one"
            raise command.reject(errno.EINVAL, f"{what} among the configurable leaves")
        return config

    def _finalize_vm(self, vm: TdVm, command: Command) -> Reply:
        """Close the measurement: the TD can run. EINVAL before INIT_VM or a second time (tdx_td_finalize)."""
        td = vm.td
        command.write_back()
        if td is None:
            raise command.reject(errno.EINVAL, "the TD is not initialised")
        if td.record.finalised:
            raise command.reject(errno.EINVAL, "the TD is finalised already")
        return Reply(commit=lambda: setattr(td.record, "finalised", True))

    # On a vCPU

    def vcpu(self, vcpu: TdVcpu, argument: int, memory: Memory) -> Reply:
        """Answer a sub-command on a TD's vCPU.

        EINVAL for an id that it does not have, or once the TD is finalised (tdx_vcpu_ioctl).
        """
        command = Command(argument, memory, self.names)
        td = vcpu.td
        if td is None or td.record.finalised:
            raise command.reject(errno.EINVAL, "only possible between KVM_TDX_INIT_VM and KVM_TDX_FINALIZE_VM")
        handler = self.vcpu_commands.get(command.id)
        if handler is None:
            raise command.unknown()
        return handler(vcpu, td, command)

    def _init_vcpu(self, vcpu: TdVcpu, td: TdState, command: Command) -> Reply:
        """Create the vCPU in the module; `data`, its first RCX, matters to no one here (tdx_vcpu_init).

        EINVAL: flags, a second time, or no X2APIC in KVM's leaf 1 of this vCPU (the module always uses x2APIC).
        """
        command.no_flags()
        if vcpu.td_initialised:
            raise command.reject(errno.EINVAL, "the vCPU is initialised already")
        features = find_entry(vcpu.cpuid, 0x1, 0)
        if features is None or not features.registers.ecx & _X2APIC:
            source = "KVM_SET_CPUID2" if self.takes_cpuid2 else "KVM_TDX_INIT_VCPU_CPUID with leaf 1"
            raise command.reject(errno.EINVAL, f"{source} has to give the vCPU X2APIC (leaf 1 ECX[21]) first")
        return Reply(commit=vcpu.became_td)

    def _init_mem_region(self, vcpu: TdVcpu, td: TdState, command: Command) -> Reply:
        """Copy pages into private memory and add them to the TD (tdx_vcpu_init_mem_region).

        EINVAL: vCPU not initialised, unknown flags, addresses not page aligned, no pages, a range that wraps or is
        not private, or that no guest_memfd backs. The three fields are advanced past what was added, failed or not.
        """
        if not vcpu.td_initialised:
            raise command.reject(errno.EINVAL, "the vCPU is not initialised (KVM_TDX_INIT_VCPU)")
        command.no_flags(c.TDX_MEASURE_MEMORY_REGION)
        memory = command.memory
        source, gpa, pages = s.TDX_INIT_MEM_REGION.unpack(memory.read(command.data, s.TDX_INIT_MEM_REGION.size))
        end = (gpa + pages * c.PAGE_SIZE) % (1 << 64)
        if not c.page_aligned(source, gpa):
            raise command.reject(errno.EINVAL, f"source {source:#x} and gpa {gpa:#x} must be page aligned")
        if not pages or end <= gpa:
            raise command.reject(errno.EINVAL, f"{pages:#x} pages at {gpa:#x} are none, or wrap")
        if not td.is_private(gpa) or not td.is_private(end - 1):
            raise command.reject(errno.EINVAL, f"{gpa:#x} to {end:#x} has the shared bit {td.shared_bit:#x} set")
        added = (vcpu.populatable(gpa, end) - gpa) // c.PAGE_SIZE
        if added:
            memory.read(source, 1)
            memory.read(source + added * c.PAGE_SIZE - 1, 1)
        advanced = s.TDX_INIT_MEM_REGION.pack(
            (source + added * c.PAGE_SIZE) % (1 << 64), gpa + added * c.PAGE_SIZE, pages - added
        )
        memory.write(command.data, advanced)
        if added != pages:
            raise command.reject(
                errno.EINVAL, f"{gpa + added * c.PAGE_SIZE:#x} is not private memory of a slot with a guest_memfd"
            )
        return Reply()


def refused_by_module(command: Command, error: SeamcallError) -> Rejected:
    """Write the SEAMCALL's status back and return KVM's errno for it: EINVAL for an operand, else EIO."""
    invalid = error.status & _STATUS_CLASS == _OPERAND_INVALID
    command.write_back(error.status if invalid else 0)
    return command.reject(errno.EINVAL if invalid else errno.EIO, str(error))
