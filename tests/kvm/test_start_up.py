"""What a cold `tdx-cpuid sim` loads: each of these modules would delay every QEMU by milliseconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
from plugin.kvm.launch import default_host, preload
preload()
default_host()
print(*set(sys.modules) - before)
"""


def test_sim_loads_no_slow_module() -> None:
    out = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout
    loaded = set(out.split())
    assert "plugin.kvm.device.simulated" in loaded
    assert not loaded & SLOW


def test_the_installed_start_script_adds_none() -> None:
    """It is the project's own: those that installers write may load `re`."""
    script = Path(sys.executable).with_name("tdx-cpuid")
    with_it = loaded_by(str(script), "sim", "--", "true") - loaded_by("-c", "")
    assert "qmp_client.cli.entry" in with_it
    assert not with_it & SLOW


def loaded_by(*arguments: str) -> set[str]:
    command = [sys.executable, "-X", "importtime", *arguments]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return {line.rpartition("|")[2].strip() for line in table.splitlines() if line.startswith("import time:")}


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
