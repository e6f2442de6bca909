"""Everything in this folder runs QEMU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark it so."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def environment(qemu: Path, firmware: Path, tmp_path: Path) -> dict[str, str]:
    """What a page's commands run in: tdx-cpuid is in PATH, and there are a QEMU and firmware."""
    program = tmp_path / "bin" / "tdx-cpuid"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m qmp_client.cli.entry "$@"\n')
    program.chmod(0o755)
    return os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "TDX_CPUID_QEMU": str(qemu),
        "TDX_CPUID_FIRMWARE": str(firmware),
    }
