"""Numbers and layouts against the kernel's own header, read by a C compiler.

What a header lacks (Debian 12's knows no TDX) the C program leaves out by #ifdef; LINUX_HEADERS names a directory
with newer ones, such as the linux-headers of a QEMU build.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.kvm.uapi import constants
from plugin.kvm.uapi.capabilities import NUMBERS as CAPABILITIES
from plugin.kvm.uapi.ioctls import REQUESTS
from plugin.kvm.uapi.registers import LAYOUTS as REGISTERS
from plugin.kvm.uapi.structs import LAYOUTS, RUN

NOT_FIELDS = ("state", "hole")  # opaque structures, and padding that C leaves unnamed
NOT_IN_USER_HEADERS = ("PAGE_SIZE", "MAX_CPUID_ENTRIES", "USER_MEM_SLOTS", "MAX_VCPU_IDS", "CAP_COALESCED_MMIO_PAGE")
GUARDS = {
    "kvm_sregs2": "KVM_GET_SREGS2",
    "kvm_userspace_memory_region2": "KVM_SET_USER_MEMORY_REGION2",
    "kvm_create_guest_memfd": "KVM_CREATE_GUEST_MEMFD",
    "kvm_memory_attributes": "KVM_SET_MEMORY_ATTRIBUTES",
    "kvm_pre_fault_memory": "KVM_PRE_FAULT_MEMORY",
}


def guard(name: str) -> str:
    """The macro that tells whether a header has a structure or an enumeration constant."""
    return GUARDS.get(name, "KVM_X86_TDX_VM" if name.lower().startswith("kvm_tdx_") else "KVM_API_VERSION")


def questions() -> Iterator[tuple[str, str, int]]:
    """Yield (macro that must be defined, C expression, expected value)."""
    for row in REQUESTS:
        yield row.name, row.name, row.number
    for name, number in CAPABILITIES.items():
        yield f"KVM_CAP_{name}", f"KVM_CAP_{name}", number
    for name, value in vars(constants).items():
        if name.isupper() and isinstance(value, int) and name not in NOT_IN_USER_HEADERS:
            macro = f"KVM_{name}"
            enumeration = name.startswith("TDX_") and name != "TDX_MEASURE_MEMORY_REGION"
            yield guard(macro) if enumeration else macro, macro, value
    for layout in (*LAYOUTS, *REGISTERS):
        if layout is not RUN:
            yield guard(layout.name), f"sizeof(struct {layout.name})", layout.size
        for field in layout.fields:
            if field not in NOT_FIELDS:
                member = field.replace("cpuid_", "cpuid.")
                yield guard(layout.name), f"offsetof(struct {layout.name}, {member})", layout.offset(field)


INCLUDES: list[list[str]] = [[]] + ([["-I", os.environ["LINUX_HEADERS"]]] if "LINUX_HEADERS" in os.environ else [])


@pytest.mark.parametrize("include", INCLUDES, ids=lambda include: include[-1] if include else "installed")
def test_every_number_size_and_offset_is_the_headers(include: list[str], tmp_path: Path) -> None:
    asked = list(questions())
    lines = [
        f'#ifdef {macro}\n    printf("{number} %lld\\n", (long long)({expression}));\n#endif'
        for number, (macro, expression, _) in enumerate(asked)
    ]
    source = tmp_path / "ask.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/kvm.h>\nint main(void)\n{\n"
        + "\n".join(lines)
        + "\n    return 0;\n}\n"
    )
    program = tmp_path / "ask"
    subprocess.run(["gcc", "-w", *include, "-o", program, source], check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    answers = {int(number): int(value) for number, value in (line.split() for line in output.splitlines())}
    expected = {number: asked[number][2] for number in answers}
    assert {asked[n][1]: answers[n] for n in answers if answers[n] != expected[n]} == {}
    assert len(answers) > len(REQUESTS)
