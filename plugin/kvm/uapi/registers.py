"""A vCPU's state by the names of its registers, for those few who look into it; to the table of ioctls it is bytes.

FPU, XSAVE area and APIC page stay bytes, as their layouts are the processor's. Loaded only by who needs it: a TD's
registers are hidden from KVM, and start-up counts.
"""

from __future__ import annotations

from plugin.kvm.uapi.layout import Layout

_SEGMENT = {
    "base": "Q", "limit": "I", "selector": "H", "type": "B", "present": "B", "dpl": "B", "db": "B", "s": "B",
    "l": "B", "g": "B", "avl": "B", "unusable": "B", "padding": "B",
}  # fmt: skip
_TABLE = {"base": "Q", "limit": "H", "padding": "6s"}


def _nested(parts: dict[str, dict[str, str]]) -> dict[str, str]:
    return {f"{part}.{field}": code for part, fields in parts.items() for field, code in fields.items()}


_GENERAL = "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags"
_SEGMENTS = _nested(
    dict.fromkeys(("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"), _SEGMENT) | {"gdt": _TABLE, "idt": _TABLE}
)
_CONTROL = dict.fromkeys(("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base"), "Q")
_EVENTS = {
    "exception": {"injected": "B", "nr": "B", "has_error_code": "B", "pending": "B", "error_code": "I"},
    "interrupt": {"injected": "B", "nr": "B", "soft": "B", "shadow": "B"},
    "nmi": {"injected": "B", "pending": "B", "masked": "B", "pad": "B"},
}
_SMI = {"smi": {"smm": "B", "pending": "B", "smm_inside_nmi": "B", "latched_init": "B"}}

REGS = Layout("kvm_regs", **dict.fromkeys(_GENERAL.split(), "Q"))
SREGS = Layout("kvm_sregs", **_SEGMENTS, **_CONTROL, interrupt_bitmap="32s")
SREGS2 = Layout("kvm_sregs2", **_SEGMENTS, **_CONTROL, flags="Q", pdptrs="32s")
DEBUGREGS = Layout("kvm_debugregs", db="32s", dr6="Q", dr7="Q", flags="Q", reserved="72s")
VCPU_EVENTS = Layout(
    "kvm_vcpu_events", **_nested(_EVENTS), sipi_vector="I", flags="I", **_nested(_SMI),
    **{"triple_fault.pending": "B"}, reserved="26s", exception_has_payload="B", exception_payload="Q",
)  # fmt: skip

LAYOUTS: tuple[Layout, ...] = (REGS, SREGS, SREGS2, DEBUGREGS, VCPU_EVENTS)
BY_NAME = {layout.name: layout for layout in LAYOUTS}
