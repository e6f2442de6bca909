"""/dev/kvm: what it can do, and new VMs."""

from __future__ import annotations

import errno

from plugin.kvm.contract import NewFile, Reply
from plugin.kvm.device import capabilities, msrs
from plugin.kvm.device.descriptor import Call, Descriptor
from plugin.kvm.device.host import KvmHost
from plugin.kvm.device.vm import Vm
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.cpuid import Entry, pack


class System(Descriptor):
    """The descriptor of /dev/kvm (kvm_dev_ioctl and kvm_arch_dev_ioctl)."""

    kind: str = "system"

    def __init__(self, host: KvmHost) -> None:
        super().__init__(host.warnings)
        self.host = host

    def get_api_version(self, call: Call) -> Reply:
        """Answer 12. EINVAL if there is an argument."""
        if call.argument:
            raise call.reject(errno.EINVAL, "takes no argument")
        return Reply(c.API_VERSION)

    def create_vm(self, call: Call) -> NewFile:
        """Create a VM of type 0 or 5 (TD); EINVAL for any other (kvm_arch_init_vm). A TD is not initialised yet."""
        if call.argument not in (c.X86_DEFAULT_VM, c.X86_TDX_VM):
            raise call.reject(errno.EINVAL, f"VM type {call.argument}: only 0 (default) and 5 (TDX) exist here")
        return NewFile(Vm(self.host, call.argument), 0, "kvm-vm")

    def check_extension(self, call: Call) -> Reply:
        """Answer a capability's value, 0 if it is unknown; never fails."""
        return Reply(capabilities.value(call.argument, self.host.supported.xsave_size))

    def get_vcpu_mmap_size(self, call: Call) -> Reply:
        """Answer the size in bytes of a vCPU's shared pages. EINVAL if there is an argument."""
        if call.argument:
            raise call.reject(errno.EINVAL, "takes no argument")
        return Reply(capabilities.MMAP_PAGES * c.PAGE_SIZE)

    def get_supported_cpuid(self, call: Call) -> Reply:
        """Write what CPUID a guest can be given. E2BIG if nent is too small, with nothing written.

        (kvm_dev_ioctl_get_cpuid)
        """
        room, padding = call.argument_struct()
        return self._write_cpuid(call, room, padding, self.host.supported.entries)

    def get_emulated_cpuid(self, call: Call) -> Reply:
        """Write what KVM can emulate at a cost. E2BIG as for the supported leaves; EINVAL for dirty padding."""
        room, padding = call.argument_struct()
        if not room:
            raise call.reject(errno.E2BIG, "no room for entries")
        room = min(room, c.MAX_CPUID_ENTRIES)
        raw = call.memory.read(call.argument + s.CPUID2.size, room * s.CPUID_ENTRY2.size)
        at = s.CPUID_ENTRY2.offset("padding")
        if any(any(raw[start + at : start + s.CPUID_ENTRY2.size]) for start in range(0, len(raw), s.CPUID_ENTRY2.size)):
            raise call.reject(errno.EINVAL, "the entries' padding must be 0")
        entries = self.host.supported.emulated(room)
        if entries is None:
            raise call.reject(errno.E2BIG, f"the entries do not fit in {room}")
        return self._write_cpuid(call, room, padding, entries)

    @staticmethod
    def _write_cpuid(call: Call, room: int, padding: int, entries: tuple[Entry, ...]) -> Reply:
        if room < len(entries):
            raise call.reject(errno.E2BIG, f"{len(entries)} entries do not fit in {room}")
        call.write(s.CPUID2.pack(len(entries), padding) + pack(entries))
        return Reply()

    def get_msr_index_list(self, call: Call) -> Reply:
        """Write the MSRs a VMM saves and restores. E2BIG if they do not fit, with nmsrs = the number needed."""
        return self._write_list(call, msrs.INDEX_LIST)

    def get_msr_feature_index_list(self, call: Call) -> Reply:
        """Write the feature MSRs. E2BIG as for the other list."""
        return self._write_list(call, tuple(msrs.FEATURES))

    @staticmethod
    def _write_list(call: Call, indices: tuple[int, ...]) -> Reply:
        (room,) = call.argument_struct()
        call.write(s.MSR_LIST.pack(len(indices)))
        if room < len(indices):
            raise call.reject(errno.E2BIG, f"{len(indices)} MSRs do not fit in {room}")
        call.write(b"".join(index.to_bytes(4, "little") for index in indices), s.MSR_LIST.size)
        return Reply()

    def get_msrs(self, call: Call) -> Reply:
        """Write feature MSRs up to the first that is none; the value is how many (do_get_feature_msr)."""
        asked = msrs.read(call)
        values = []
        for index, _ in asked:
            if index not in msrs.FEATURES:
                break
            values.append((index, msrs.FEATURES[index]))
        msrs.write(call, values)
        return Reply(len(values))

    def get_mce_cap_supported(self, call: Call) -> Reply:
        """Write the supported MCG_CAP bits: software recovery, MCG_CTL, CMCI, LMCE."""
        call.write(capabilities.MCE_CAP_SUPPORTED.to_bytes(8, "little"))
        return Reply()

    def get_device_attr(self, call: Call) -> Reply:
        """Write the XCR0 bits a guest can have (KVM_X86_XCOMP_GUEST_SUPP). ENXIO for any other attribute."""
        self.has_device_attr(call)
        *_, address = call.argument_struct()
        call.memory.write(address, self.host.supported.xcr0.to_bytes(8, "little"))
        return Reply()

    def has_device_attr(self, call: Call) -> Reply:
        """Say whether an attribute exists. ENXIO if not, EINVAL for flags (kvm_x86_dev_has_attr)."""
        flags, group, attribute, _ = call.argument_struct()
        if flags:
            raise call.reject(errno.EINVAL, "flags must be 0")
        if group or attribute != c.X86_XCOMP_GUEST_SUPP:
            raise call.reject(errno.ENXIO, f"there is no attribute {attribute} in group {group}")
        return Reply()
