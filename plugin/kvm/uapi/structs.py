"""Structures of linux/kvm.h and asm/kvm.h (x86-64) that cross the ioctls served here.

The test suite compares every size and offset with the kernel's header. A structure that is only stored and
given back has one opaque field; one with entries behind it is described by its header alone.
"""

from plugin.kvm.uapi.layout import Layout


def _opaque(name: str, size: int) -> Layout:
    return Layout(name, state=f"{size}s")


# CPUID
CPUID_ENTRY2 = Layout(
    "kvm_cpuid_entry2",
    function="I", index="I", flags="I", eax="I", ebx="I", ecx="I", edx="I", padding="12s",
)  # fmt: skip
CPUID2 = Layout("kvm_cpuid2", nent="I", padding="I")

# Trust domains
TDX_CMD = Layout("kvm_tdx_cmd", id="I", flags="I", data="Q", hw_error="Q")
TDX_CAPABILITIES = Layout(
    "kvm_tdx_capabilities",
    supported_attrs="Q", supported_xfam="Q",
    kernel_tdvmcallinfo_1_r11="Q", user_tdvmcallinfo_1_r11="Q",
    kernel_tdvmcallinfo_1_r12="Q", user_tdvmcallinfo_1_r12="Q",
    reserved="2000s", cpuid_nent="I", cpuid_padding="I",
)  # fmt: skip
TDX_INIT_VM = Layout(
    "kvm_tdx_init_vm",
    attributes="Q", xfam="Q", mrconfigid="48s", mrowner="48s", mrownerconfig="48s",
    reserved="96s", cpuid_nent="I", cpuid_padding="I",
)  # fmt: skip
TDX_INIT_MEM_REGION = Layout("kvm_tdx_init_mem_region", source_addr="Q", gpa="Q", nr_pages="Q")

# Memory
USERSPACE_MEMORY_REGION = Layout(
    "kvm_userspace_memory_region",
    slot="I", flags="I", guest_phys_addr="Q", memory_size="Q", userspace_addr="Q",
)  # fmt: skip
USERSPACE_MEMORY_REGION2 = Layout(
    "kvm_userspace_memory_region2",
    slot="I", flags="I", guest_phys_addr="Q", memory_size="Q", userspace_addr="Q",
    guest_memfd_offset="Q", guest_memfd="I", pad1="I", pad2="112s",
)  # fmt: skip
CREATE_GUEST_MEMFD = Layout("kvm_create_guest_memfd", size="Q", flags="Q", reserved="48s")
MEMORY_ATTRIBUTES = Layout("kvm_memory_attributes", address="Q", size="Q", attributes="Q", flags="Q")
PRE_FAULT_MEMORY = Layout("kvm_pre_fault_memory", gpa="Q", size="Q", flags="Q", padding="40s")
DIRTY_LOG = Layout("kvm_dirty_log", slot="I", padding1="I", dirty_bitmap="Q")

# MSRs
MSR_LIST = Layout("kvm_msr_list", nmsrs="I")
MSRS = Layout("kvm_msrs", nmsrs="I", pad="I")
MSR_ENTRY = Layout("kvm_msr_entry", index="I", reserved="I", data="Q")
MSR_FILTER = Layout("kvm_msr_filter", flags="I", hole="4s", ranges="384s")

# Interrupts and events
IRQ_LEVEL = Layout("kvm_irq_level", irq="I", level="I")
IRQ_ROUTING = Layout("kvm_irq_routing", nr="I", flags="I")
IRQ_ROUTING_ENTRY = Layout("kvm_irq_routing_entry", gsi="I", type="I", flags="I", pad="I", u="32s")
IRQFD = Layout("kvm_irqfd", fd="I", gsi="I", flags="I", resamplefd="I", pad="16s")
IOEVENTFD = Layout("kvm_ioeventfd", datamatch="Q", addr="Q", len="I", fd="i", flags="I", pad="36s")
MSI = Layout("kvm_msi", address_lo="I", address_hi="I", data="I", flags="I", devid="I", pad="12s")
COALESCED_MMIO_ZONE = Layout("kvm_coalesced_mmio_zone", addr="Q", size="I", pad="I")
IRQCHIP = _opaque("kvm_irqchip", 520)
PIT_CONFIG = Layout("kvm_pit_config", flags="I", pad="60s")
PIT_STATE2 = _opaque("kvm_pit_state2", 112)

# Whole machine
ENABLE_CAP = Layout("kvm_enable_cap", cap="I", flags="I", args="32s", pad="64s")
DEVICE_ATTR = Layout("kvm_device_attr", flags="I", group="I", attr="Q", addr="Q")
CREATE_DEVICE = Layout("kvm_create_device", type="I", fd="I", flags="I")
CLOCK_DATA = Layout("kvm_clock_data", clock="Q", flags="I", pad0="I", realtime="Q", host_tsc="Q", pad="16s")

# vCPU state
REGS = _opaque("kvm_regs", 144)
SREGS = _opaque("kvm_sregs", 312)
SREGS2 = _opaque("kvm_sregs2", 320)
FPU = _opaque("kvm_fpu", 416)
XSAVE = _opaque("kvm_xsave", 4096)
XCRS = _opaque("kvm_xcrs", 392)
LAPIC_STATE = _opaque("kvm_lapic_state", 1024)
VCPU_EVENTS = _opaque("kvm_vcpu_events", 64)
DEBUGREGS = _opaque("kvm_debugregs", 128)
MP_STATE = Layout("kvm_mp_state", mp_state="I")
GUEST_DEBUG = Layout("kvm_guest_debug", control="I", pad="I", arch="64s")
SIGNAL_MASK = Layout("kvm_signal_mask", len="I")
INTERRUPT = Layout("kvm_interrupt", irq="I")
TPR_ACCESS_CTL = Layout("kvm_tpr_access_ctl", enabled="I", flags="I", reserved="32s")
VAPIC_ADDR = Layout("kvm_vapic_addr", vapic_addr="Q")

# The head of the pages that a vCPU shares with its VMM; only what is used here.
RUN = Layout("kvm_run", request_interrupt_window="B", immediate_exit="B", padding1="6s", exit_reason="I")

LAYOUTS: tuple[Layout, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Layout))
