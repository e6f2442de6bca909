"""Firmware that starts programs which nobody signed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from qmp_client.qemu import firmware

STORE_HEADER = 28
"""Bytes of edk2's VARIABLE_STORE_HEADER; its size stands behind the GUID."""


@pytest.fixture(scope="session")
def open_firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TDVF image without the keys that its variable store may come with: no Secure Boot.

    The store is the first firmware volume of the image (edk2, MdePkg/Include/Pi/PiFirmwareVolume.h).
    """
    image = bytearray(firmware.default().read_bytes())
    assert image[40:44] == b"_FVH"
    (store,) = struct.unpack_from("<H", image, 48)
    (size,) = struct.unpack_from("<I", image, store + 16)
    image[store + STORE_HEADER : store + size] = b"\xff" * (size - STORE_HEADER)
    path = tmp_path_factory.mktemp("firmware") / "OVMF.fd"
    path.write_bytes(image)
    return path
