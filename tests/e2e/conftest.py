"""The real patched QEMU and the real firmware; scripts/test builds and fetches both before pytest runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qmp_client.qemu import firmware as tdvf
from qmp_client.qemu.locate import find_qemu


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder runs QEMU."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def qemu() -> Path:
    """The patched QEMU; MissingError says how to build it."""
    return find_qemu(None)


@pytest.fixture(scope="session")
def firmware() -> Path:
    """A TDVF image."""
    path = Path(os.environ.get("TDX_CPUID_FIRMWARE") or tdvf.default())
    tdvf.check(path)
    return path
