"""What tests of several packages share."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from qmp_client.qemu import firmware as images
from qmp_client.qemu.firmware import FOOTER, TDX_METADATA_OFFSET
from qmp_client.qemu.locate import find_qemu

STORE_HEADER = 28
"""Bytes of edk2's VARIABLE_STORE_HEADER; its size stands behind the GUID."""

settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How long an example takes, or is made, says something about the machine's load, and nothing about the code."""
settings.load_profile("any-machine")

signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell starts a job in the background with SIGINT ignored, and so would be every program that a test interrupts."""


@pytest.fixture(scope="session")
def tdvf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with just enough TDX metadata to be taken for a TDVF image; nothing boots from it."""
    body = b"TDVF" + struct.pack("<III", 32, 1, 0) + b"\0" * 16
    table_length = 22 + 18
    pointer = struct.pack("<I", len(body) + table_length + 32) + struct.pack("<H", 22) + TDX_METADATA_OFFSET
    path = tmp_path_factory.mktemp("firmware") / "tdvf.fd"
    path.write_bytes(body + pointer + struct.pack("<H", table_length) + FOOTER + b"\0" * 32)
    return path


@pytest.fixture(scope="session")
def qemu() -> Path:
    """The real patched QEMU, which scripts/test builds; MissingError says how."""
    return find_qemu(None)


@pytest.fixture(scope="session")
def firmware() -> Path:
    """A TDVF image."""
    path = Path(os.environ.get("TDX_CPUID_FIRMWARE") or images.default())
    images.check(path)
    return path


@pytest.fixture(scope="session")
def open_firmware(firmware: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TDVF image without the keys that its variable store may come with: no Secure Boot.

    The store is the first firmware volume of the image (edk2, MdePkg/Include/Pi/PiFirmwareVolume.h).
    """
    image = bytearray(firmware.read_bytes())
    assert image[40:44] == b"_FVH"
    (store,) = struct.unpack_from("<H", image, 48)
    (size,) = struct.unpack_from("<I", image, store + 16)
    image[store + STORE_HEADER : store + size] = b"\xff" * (size - STORE_HEADER)
    path = tmp_path_factory.mktemp("firmware") / "OVMF.fd"
    path.write_bytes(image)
    return path
