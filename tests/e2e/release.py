"""Tests take any patched QEMU that TDX_CPUID_QEMU names; a few compare it with what is written down of one release."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from plugin.qemu.request.words import SERIES


def release(qemu: Path) -> tuple[int, int]:
    """The major and minor number of a QEMU."""
    said = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"version (\d+)\.(\d+)", said)
    assert version, said
    return int(version[1]), int(version[2])


def only_with_the_written_down(qemu: Path) -> None:
    """Skip the test unless this is the QEMU whose models and features are in plugin/qemu/request/data."""
    found = "{}.{}".format(*release(qemu))
    if found != SERIES:
        pytest.skip(f"what is written down is of QEMU {SERIES}, and this is {found}")
