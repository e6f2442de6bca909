"""TDVF firmware: a TD boots from an image that carries TDX metadata, and QEMU accepts no other.

The layout is that of Intel's TDX Virtual Firmware Design Guide and of OVMF's GUIDed footer table: the image ends with
32 bytes of reset vector, before which entries of (data, u16 length, GUID) are read backwards.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from uuid import UUID

from plugin import document
from qmp_client.errors import MissingError, UsageError

FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
TDX_METADATA_OFFSET = UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
RESET_VECTOR = 32
ENTRY = struct.Struct("<H16s")
DESCRIPTOR = struct.Struct("<4sIII")  # signature, length, version, number of sections


def find_firmware(given: Path | None) -> Path:
    """The image to start from: the given one, else the ``default``. Raises what ``check`` raises."""
    path = given or default()
    check(path)
    return path


def check(path: Path) -> None:
    """Raise UsageError when the file is no image that a TD can start from, MissingError when there is none."""
    try:
        image = document.read(path)
    except document.Unreadable as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise MissingError(f"no firmware at {path}", hint="scripts/get-firmware fetches the TDVF image") from error
        raise UsageError(f"the firmware {path} cannot be read: {error}") from error
    if not has_tdx_metadata(image):
        raise UsageError(
            f"{path} has no TDX metadata, so no TD can start from it",
            hint="use a TDVF image (OVMF built for TDX); scripts/get-firmware fetches one",
        )


def has_tdx_metadata(image: bytes) -> bool:
    """Whether the image's footer table points to a TDVF descriptor inside the image."""
    end = len(image) - RESET_VECTOR
    if end < ENTRY.size or image[end - 16 : end] != FOOTER:
        return False
    total = ENTRY.unpack_from(image, end - ENTRY.size)[0]
    start = max(end - total, 0)
    position = end - ENTRY.size
    while position - ENTRY.size >= start:
        length, guid = ENTRY.unpack_from(image, position - ENTRY.size)
        if length < ENTRY.size or position - length < start:
            return False
        if guid == TDX_METADATA_OFFSET and length >= ENTRY.size + 4:
            from_end = struct.unpack_from("<I", image, position - length)[0]
            return _is_descriptor(image, len(image) - from_end)
        position -= length
    return False


def _is_descriptor(image: bytes, offset: int) -> bool:
    return 0 <= offset <= len(image) - DESCRIPTOR.size and DESCRIPTOR.unpack_from(image, offset)[0] == b"TDVF"


def default() -> Path:
    """The image that $TDX_CPUID_FIRMWARE names, else where ``scripts/get-firmware`` or the distribution puts it."""
    if named := os.environ.get("TDX_CPUID_FIRMWARE"):
        return Path(named)
    cached = cache_folder() / "firmware" / "OVMF.inteltdx.ms.fd"
    packaged = Path("/usr/share/ovmf/OVMF.inteltdx.ms.fd")
    return packaged if packaged.exists() and not cached.exists() else cached


def cache_folder() -> Path:
    """The folder for what is fetched or built once per user (``$XDG_CACHE_HOME/tdx-cpuid``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tdx-cpuid"
