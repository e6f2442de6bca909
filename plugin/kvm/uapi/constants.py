"""Numbers of linux/kvm.h and asm/kvm.h that are not ioctl requests: flags, limits, sub-command ids; whole pages.

Each name is the kernel's without its KVM_ prefix; the test suite compares them with the header.
"""

API_VERSION = 12
PAGE_SIZE = 4096
MAX_CPUID_ENTRIES = 256  # arch/x86/include/asm/kvm_host.h; not in a user header
USER_MEM_SLOTS = 32764  # SHRT_MAX less the three internal slots: include/linux/kvm_host.h
MAX_VCPU_IDS = 4096  # with the default CONFIG_KVM_MAX_NR_VCPUS=1024: four ids a vCPU
CPUID_FLAG_SIGNIFCANT_INDEX = 1  # the kernel's spelling

# KVM_CREATE_VM
X86_DEFAULT_VM = 0
X86_TDX_VM = 5

# KVM_MEMORY_ENCRYPT_OP of a TD
TDX_CAPABILITIES = 0
TDX_INIT_VM = 1
TDX_INIT_VCPU = 2
TDX_INIT_MEM_REGION = 3
TDX_FINALIZE_VM = 4
TDX_GET_CPUID = 5
TDX_MEASURE_MEMORY_REGION = 1 << 0

# Memory
MEM_LOG_DIRTY_PAGES = 1 << 0
MEM_READONLY = 1 << 1
MEM_GUEST_MEMFD = 1 << 2
MEMORY_ATTRIBUTE_PRIVATE = 1 << 3

# Events
IRQFD_FLAG_DEASSIGN = 1 << 0
IRQFD_FLAG_RESAMPLE = 1 << 1
IOEVENTFD_FLAG_DATAMATCH = 1 << 0
IOEVENTFD_FLAG_PIO = 1 << 1
IOEVENTFD_FLAG_DEASSIGN = 1 << 2

MP_STATE_RUNNABLE = 0
MP_STATE_UNINITIALIZED = 1
X86_XCOMP_GUEST_SUPP = 0
CAP_COALESCED_MMIO_PAGE = 2  # KVM_COALESCED_MMIO_PAGE_OFFSET
CLOCK_TSC_STABLE = 2
CLOCK_REALTIME = 1 << 2
CLOCK_HOST_TSC = 1 << 3

X86_QUIRK_STUFF_FEATURE_MSRS = 1 << 8

TDX_SUBCOMMANDS = {
    TDX_CAPABILITIES: "KVM_TDX_CAPABILITIES",
    TDX_INIT_VM: "KVM_TDX_INIT_VM",
    TDX_INIT_VCPU: "KVM_TDX_INIT_VCPU",
    TDX_INIT_MEM_REGION: "KVM_TDX_INIT_MEM_REGION",
    TDX_FINALIZE_VM: "KVM_TDX_FINALIZE_VM",
    TDX_GET_CPUID: "KVM_TDX_GET_CPUID",
}


def page_aligned(*numbers: int) -> bool:
    """Whether every number is a multiple of the page size."""
    return not any(number % PAGE_SIZE for number in numbers)
