"""What a cold `tdx-cpuid sim` loads: each of these modules would delay every QEMU by milliseconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

SLOW = {
    "typing",
    "re",
    "enum",
    "json",
    "inspect",
    "dataclasses",
    "pathlib",
    "subprocess",
    "asyncio",
    "click",
    "msgspec",
}
LOADED = """
import sys
before = set(sys.modules)
from qmp_client.cli import entry
from plugin.kvm.launch import DEFAULT_MODULE, DEFAULT_PLATFORM, load
load(DEFAULT_MODULE, DEFAULT_PLATFORM)
print(*set(sys.modules) - before)
"""


def test_sim_loads_no_slow_module() -> None:
    out = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout
    loaded = set(out.split())
    assert "plugin.kvm.device.simulated" in loaded
    assert not loaded & SLOW


def test_named_tuples_are_those_of_typing() -> None:
    from plugin.cpuid import Leaf  # noqa: PLC0415
    from plugin.kvm.contract import Reply  # noqa: PLC0415

    assert (Leaf(7), Leaf._fields, Leaf(7) == (7, None)) == ((7, None), ("number", "subleaf"), True)
    assert repr(Reply(value=3)) == "Reply(value=3, commit=None)"
    assert Leaf(1)._replace(subleaf=2).order == (1, 2)
    with pytest.raises(TypeError):
        Leaf()  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Leaf(1).number = 2  # type: ignore[misc]
