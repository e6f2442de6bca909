"""A vCPU's descriptor: its CPUID, its state, and KVM_RUN."""

from __future__ import annotations

import errno

from plugin.kvm.contract import Execution, Rejected, Reply, Wait
from plugin.kvm.device import msrs
from plugin.kvm.device.descriptor import Call, Descriptor
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.capabilities import NUMBERS
from plugin.kvm.uapi.capabilities import name as capability_name
from plugin.kvm.uapi.cpuid import Entry, pack, unpack
from plugin.typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from plugin.kvm.device.host import KvmHost
    from plugin.kvm.dialects.td import TdState

    class OwnVm(Protocol):
        """The VM that a vCPU belongs to, as the vCPU sees it."""

        host: KvmHost
        irqchip: str
        tsc_khz: int
        td: TdState | None

        @property
        def is_td(self) -> bool:
            """Whether it was created as a TD."""

        @property
        def disabled_quirks(self) -> int:
            """The KVM_X86_QUIRK_ bits that the VMM turned off."""

        def populatable(self, first: int, end: int) -> int:
            """Return how far [first, end) is private memory that a guest_memfd backs."""


# Without TD: what KVM_GET_x gives until KVM_SET_x. With TD, KVM cannot see registers, FPU or APIC page:
# guest_state_protected, fpstate_is_confidential and guest_apic_protected in arch/x86/kvm.
_SEEN_OF_A_TD = ("VCPU_EVENTS",)
_SREGS = ("SREGS", "SREGS2")
_MCG_BANKS, _MCG_KNOWN = 0xFF, 1 << 24 | 1 << 8 | 1 << 27 | 1 << 10
_ENABLED_ON_VCPU = (NUMBERS["ENFORCE_PV_FEATURE_CPUID"],)
_LAST_MP_STATE = 4  # KVM_MP_STATE_SIPI_RECEIVED


class Vcpu(Descriptor):
    """The descriptor KVM_CREATE_VCPU returns (kvm_vcpu_ioctl and kvm_arch_vcpu_ioctl)."""

    kind: str = "vcpu"

    def __init__(self, vm: OwnVm, number: int) -> None:
        super().__init__(vm.host.warnings)
        self.vm = vm
        self.host = vm.host
        self.number = number
        """The vCPU's id, which is its APIC id."""
        self.cpuid: tuple[Entry, ...] = ()
        """What KVM believes of the vCPU, and answers for by hypercall: KVM_SET_CPUID2's entries, or a TD's own."""
        self.td_initialised = False
        self.execution: Execution = vm.host.new_execution()
        self.mp_state = c.MP_STATE_UNINITIALIZED if number and vm.irqchip else c.MP_STATE_RUNNABLE
        self._tsc_khz = vm.tsc_khz
        self._states: dict[str, bytes] = {}
        self._msrs = dict(msrs.TD_RESET | msrs.FEATURES if vm.is_td else msrs.RESET)
        if vm.disabled_quirks & c.X86_QUIRK_STUFF_FEATURE_MSRS:
            self._msrs |= dict.fromkeys(msrs.FEATURES, 0)

    @property
    def td(self) -> TdState | None:
        """The TD that it belongs to; None before KVM_TDX_INIT_VM, and for good in an ordinary VM."""
        return self.vm.td

    def populatable(self, first: int, end: int) -> int:
        """Return how far the guest addresses [first, end) can be populated: the first address that cannot."""
        return self.vm.populatable(first, end)

    def became_td(self) -> None:
        """Take KVM_TDX_INIT_VCPU."""
        self.td_initialised = True
        self.mp_state = c.MP_STATE_RUNNABLE

    def take_cpuid(self, entries: tuple[Entry, ...]) -> None:
        """Take KVM's copy of the vCPU's CPUID."""
        self.cpuid = entries
        if self.td is not None:
            self.td.record.copied(self.number, entries)

    def memory_encrypt_op(self, call: Call) -> Reply:
        """Pass a sub-command to the TDX dialect. ENOTTY if the VM is not a TD."""
        if not self.vm.is_td:
            raise call.reject(errno.ENOTTY, "the VM is not a TD (it was not created with type 5)")
        refusals = self.host.refusals
        try:
            return refusals.granted(self.host.tdx.vcpu(self, call.argument, call.memory))
        except Rejected as rejected:
            refusals.refused(rejected)
            raise

    def run(self, call: Call) -> Reply | Wait:
        """Run the guest, if the vCPU is ready for it (kvm_arch_vcpu_ioctl_run, tdx_vcpu_pre_run).

        EINVAL: an argument, or a TD that is not finalised. EINTR: kvm_run's immediate_exit is set.
        """
        if call.argument:
            raise call.reject(errno.EINVAL, "takes no argument")
        td = self.td
        if self.vm.is_td and (td is None or not td.record.finalised or not self.td_initialised):
            raise call.reject(errno.EINVAL, "the TD is not finalised, or the vCPU is not initialised")
        at = s.RUN.offset("immediate_exit")
        assert self.shared is not None
        if self.shared[at : at + 1] != b"\0":
            raise call.reject(errno.EINTR, "immediate_exit is set")
        return self.execution.run(self.shared)

    # CPUID and MSRs

    def set_cpuid2(self, call: Call) -> Reply:
        """Keep what the VMM says the vCPU's CPUID is; a TD's own comes from the module.

        E2BIG above 256 entries. EINVAL for a TD in a dialect in which KVM takes the vCPU's CPUID from the TD.
        """
        if self.vm.is_td and not self.host.tdx.takes_cpuid2:
            refused = call.reject(errno.EINVAL, "a TD's vCPU takes its CPUID from the TD (KVM_TDX_INIT_VCPU_CPUID)")
            raise self.host.refusals.refused(refused)
        count, _ = call.argument_struct()
        if count > c.MAX_CPUID_ENTRIES:
            raise call.reject(errno.E2BIG, f"{count} entries; at most {c.MAX_CPUID_ENTRIES} are taken")
        raw = call.memory.read(call.argument + s.CPUID2.size, count * s.CPUID_ENTRY2.size) if count else b""
        entries = tuple(unpack(raw))
        return Reply(commit=lambda: self.take_cpuid(entries))

    def get_cpuid2(self, call: Call) -> Reply:
        """Write KVM_SET_CPUID2's entries. E2BIG if they do not fit, with nothing written."""
        room, padding = call.argument_struct()
        if room < len(self.cpuid):
            raise call.reject(errno.E2BIG, f"{len(self.cpuid)} entries do not fit in {room}")
        call.write(s.CPUID2.pack(len(self.cpuid), padding) + pack(self.cpuid))
        return Reply()

    def _can_read(self, index: int) -> bool:
        if self.vm.is_td:
            return msrs.td_can_read(index)
        return index in msrs.INDEX_LIST or index in self._msrs or msrs.td_can_read(index)

    def get_msrs(self, call: Call) -> Reply:
        """Write MSRs up to the first that KVM does not have; the value is how many. Of a TD it has few."""
        values = []
        for index, _ in msrs.read(call):
            if not self._can_read(index):
                break
            values.append((index, self._msrs.get(index, 0)))
        msrs.write(call, values)
        return Reply(len(values))

    def set_msrs(self, call: Call) -> Reply:
        """Keep MSRs up to the first that KVM does not take; the value is how many."""
        values = {}
        count = 0
        for index, data in msrs.read(call):
            if not self._can_read(index) or (self.vm.is_td and not msrs.td_can_write(index)):
                break
            values[index] = data
            count += 1
        return Reply(count, lambda: self._msrs.update(values))

    def setup_mce(self, call: Call) -> Reply:
        """Take MCG_CAP. EINVAL for no bank, more than 32 banks, or unknown bits (kvm_vcpu_ioctl_x86_setup_mce)."""
        capability = call.word()
        if not 0 < capability & _MCG_BANKS <= 32 or capability & ~(_MCG_KNOWN | _MCG_BANKS | 0xFF0000):
            raise call.reject(errno.EINVAL, f"MCG_CAP {capability:#x}")
        return Reply(commit=lambda: self._msrs.__setitem__(0x179, capability))

    # State that is kept for the VMM

    def _state(self, call: Call) -> str:
        name = call.row.name.split("_", 2)[2]
        if self.vm.is_td and name not in _SEEN_OF_A_TD:
            raise call.reject(errno.EINVAL, "the state of a TD's vCPU is protected")
        return name

    def get_state(self, call: Call) -> Reply:
        """Write registers or the like as they were last set, zeros before that. EINVAL for protected state of a TD."""
        assert call.row.layout is not None
        name = self._state(call)
        call.write(self._states.get(name, bytes(call.row.layout.size)))
        return Reply()

    def set_state(self, call: Call) -> Reply:
        """Keep registers or the like. EINVAL for protected state of a TD, or control registers that cannot be."""
        name = self._state(call)
        (state,) = call.argument_struct()
        if name in _SREGS:
            from plugin.kvm.device.sregs import Sregs  # noqa: PLC0415  a TD has none, and start-up counts

            if why := Sregs(state).refused(self.cpuid, self.host.supported.entries):
                raise call.reject(errno.EINVAL, why)
            return Reply(commit=lambda: self._keep_sregs(name, state))
        return Reply(commit=lambda: self._states.__setitem__(name, state))

    def _keep_sregs(self, name: str, state: bytes) -> None:
        """Keep control registers; CPUID's OSXSAVE and OSPKE follow CR4."""
        from plugin.kvm.device.sregs import followed  # noqa: PLC0415

        self._states[name] = state
        self.cpuid = followed(self.cpuid, state)

    def get_xsave2(self, call: Call) -> Reply:
        """Write the whole XSAVE area, KVM_CAP_XSAVE2 bytes. EINVAL for a TD."""
        self._state(call)
        size = self.host.supported.xsave_size
        call.write(self._states.get("XSAVE", b"").ljust(size, b"\0"))
        return Reply()

    def get_mp_state(self, call: Call) -> Reply:
        """Write whether the vCPU runs, halts or waits for a start-up message."""
        call.write(s.MP_STATE.pack(self.mp_state))
        return Reply()

    def set_mp_state(self, call: Call) -> Reply:
        """Set it. EINVAL without interrupt chip unless it is RUNNABLE, and for values that do not exist."""
        (state,) = call.argument_struct()
        if state > _LAST_MP_STATE or (state != c.MP_STATE_RUNNABLE and not self.vm.irqchip):
            raise call.reject(errno.EINVAL, f"multiprocessing state {state}")
        return Reply(commit=lambda: setattr(self, "mp_state", state))

    def set_guest_debug(self, call: Call) -> Reply:
        """Debug the guest. EINVAL for a TD (kvm_arch_vcpu_ioctl_set_guest_debug)."""
        call.argument_struct()
        if self.vm.is_td:
            raise call.reject(errno.EINVAL, "a TD cannot be debugged")
        return Reply()

    # Signals and interrupts

    def set_signal_mask(self, call: Call) -> Reply:
        """Take the signals blocked while the guest runs; NULL for none. EINVAL unless it is 8 bytes long."""
        if call.argument:
            (length,) = call.argument_struct()
            if length != 8:
                raise call.reject(errno.EINVAL, f"a signal set is 8 bytes, not {length}")
            call.memory.read(call.argument + s.SIGNAL_MASK.size, length)
        return Reply()

    def interrupt(self, call: Call) -> Reply:
        """Queue an interrupt vector. EINVAL above 255, ENXIO if the kernel has the interrupt chip."""
        (vector,) = call.argument_struct()
        if vector > 255:
            raise call.reject(errno.EINVAL, f"there is no vector {vector}")
        if self.vm.irqchip == "kernel":
            raise call.reject(errno.ENXIO, "the interrupt chip is in the kernel")
        return Reply()

    def smi(self, call: Call) -> Reply:
        """Enter system management mode. EINVAL for a TD, which has none."""
        if self.vm.is_td:
            raise call.reject(errno.EINVAL, "a TD has no system management mode")
        return Reply()

    def tpr_access_reporting(self, call: Call) -> Reply:
        """Report accesses to the task priority register. EINVAL for flags."""
        _, flags, _ = call.argument_struct()
        if flags:
            raise call.reject(errno.EINVAL, f"flags {flags:#x}")
        return Reply()

    def kvmclock_ctrl(self, call: Call) -> Reply:
        """Tell the guest it was stopped. EINVAL: no guest has set up its clock (kvm_set_guest_paused)."""
        raise call.reject(errno.EINVAL, "the guest has no KVM clock")

    def pre_fault_memory(self, call: Call) -> Reply:
        """Populate guest memory ahead. EINVAL for flags or a bad range, EOPNOTSUPP before KVM_TDX_FINALIZE_VM."""
        gpa, size, flags, _ = call.argument_struct()
        if flags or not size or not c.page_aligned(gpa, size) or gpa + size >= 1 << 64:
            raise call.reject(errno.EINVAL, f"{gpa:#x}, {size:#x} bytes, flags {flags:#x}")
        td = self.td
        if self.vm.is_td and (td is None or not td.record.finalised):
            raise call.reject(errno.EOPNOTSUPP, "the TD is not finalised")
        call.write(s.PRE_FAULT_MEMORY.pack(gpa + size, 0, 0, b""))
        return Reply()

    # Clocks and capabilities

    def get_tsc_khz(self, call: Call) -> Reply:
        """Answer the vCPU's TSC frequency in kHz."""
        return Reply(self._tsc_khz)

    def set_tsc_khz(self, call: Call) -> Reply:
        """Set it; 0 = the platform's. EINVAL for a TD, whose TSC is the module's, or above 31 bits."""
        khz = call.argument & 0xFFFFFFFF
        if self.vm.is_td or khz >= 1 << 31:
            raise call.reject(errno.EINVAL, f"{khz} kHz; a TD's frequency is set on the VM")
        return Reply(commit=lambda: setattr(self, "_tsc_khz", khz or self.host.platform.tsc_khz))

    def enable_cap(self, call: Call) -> Reply:
        """Turn a capability on: only the one that binds paravirtual features to CPUID. EINVAL for another, or flags."""
        number, flags, *_ = call.argument_struct()
        if flags or number not in _ENABLED_ON_VCPU:
            raise call.reject(errno.EINVAL, f"{capability_name(number)} cannot be enabled on a vCPU here")
        return Reply()
