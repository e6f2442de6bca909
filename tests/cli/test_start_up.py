"""What the commands load before they have to: start-up is part of the product."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.waiting import PATIENCE

SLOW = {"asyncio", "jinja2", "msgspec", "qemu.qmp", "rich", "subprocess"}
"""Each takes milliseconds, together far more than what is needed at once."""
LOADED = """
import sys
from importlib import import_module
before = set(sys.modules)
import_module(sys.argv[1])
print(*set(sys.modules) - before)
"""
LISTED = """
import sys
from qmp_client.cli.program import run
run(["--help"])
print(*sys.modules, file=sys.stderr)
"""


def loaded_by(module: str) -> set[str]:
    command = [sys.executable, "-c", LOADED, module]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout.split())


@pytest.mark.parametrize("module", ["qmp_client.cli.negotiate", "qmp_client.use_cases.negotiate"])
def test_qemu_is_started_before_most_is_loaded(module: str) -> None:
    loaded = loaded_by(module)
    assert module in loaded
    assert not loaded & SLOW


def test_the_rest_of_negotiate_prints_nothing_yet() -> None:
    """What prints the report is loaded while QEMU makes the TD."""
    loaded = loaded_by("qmp_client.use_cases.negotiated")
    assert "asyncio" in loaded
    assert not loaded & {"rich", "jinja2"}


def test_help_loads_nothing_of_what_commands_do() -> None:
    command = [sys.executable, "-c", LISTED]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stderr.split())
    assert "qmp_client.cli.submit" in loaded
    assert not loaded & SLOW
    assert not any(name.startswith("qmp_client.use_cases.") for name in loaded)
