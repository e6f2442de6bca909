"""Which of QEMU's last lines is the reason."""

from __future__ import annotations

import pytest

from qmp_client.qemu.ending import reason


@pytest.mark.parametrize(
    ("complaints", "said"),
    [
        ([], ""),
        (["qemu-system-x86_64: warning: old"], ""),
        (["qemu-system-x86_64: warning: old", "qemu-system-x86_64: no TDX", "qemu-system-x86_64: gone"], "no TDX"),
        (["KVM_X86_SETUP_MCE: Invalid argument"], "KVM_X86_SETUP_MCE: Invalid argument"),
        (["a trace of something", "qemu-system-x86_64: no TDX"], "no TDX"),
        (["", "  "], ""),
    ],
)
def test_the_first_line_that_is_no_warning_and_has_a_name_before_one_that_has_none(
    complaints: list[str], said: str
) -> None:
    assert reason(complaints) == said
