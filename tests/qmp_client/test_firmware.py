"""TDVF metadata: only an image that a TD can start from is accepted."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmp_client.errors import MissingError, UsageError
from qmp_client.qemu.firmware import FOOTER, TDX_METADATA_OFFSET, check, has_tdx_metadata


def image(*, signature: bytes = b"TDVF", guid: bytes = TDX_METADATA_OFFSET, from_end: int | None = None) -> bytes:
    """The smallest image with a footer table that points to a descriptor at its start."""
    body = signature + struct.pack("<III", 32, 1, 1) + b"\0" * 16
    entry = struct.pack("<I", 0) + struct.pack("<H", 22) + guid
    other = b"\0" * 8 + struct.pack("<H", 26) + b"\x11" * 16
    table_length = len(entry) + len(other) + 18
    total = len(body) + table_length + 32
    entry = struct.pack("<I", total if from_end is None else from_end) + entry[4:]
    return body + entry + other + struct.pack("<H", table_length) + FOOTER + b"\0" * 32


def test_an_image_with_metadata_is_accepted() -> None:
    assert has_tdx_metadata(image())


@pytest.mark.parametrize(
    "broken",
    [
        image(signature=b"TDXF"),
        image(guid=b"\x22" * 16),
        image(from_end=1 << 30),
        image(from_end=4),
        image()[:-1],
        b"",
        b"\0" * 4096,
    ],
    ids=["signature", "no entry", "outside", "no room", "cut short", "empty", "zeros"],
)
def test_anything_else_is_not(broken: bytes) -> None:
    assert not has_tdx_metadata(broken)


@given(st.binary(max_size=200))
def test_garbage_is_refused_without_a_crash(garbage: bytes) -> None:
    assert not has_tdx_metadata(garbage + FOOTER + b"\0" * 32)


def test_the_error_names_the_file_and_the_way_out(tmp_path: Path) -> None:
    plain = tmp_path / "bios.bin"
    plain.write_bytes(b"\0" * 65536)
    with pytest.raises(UsageError, match=r"bios\.bin has no TDX metadata") as wrong:
        check(plain)
    assert "get-firmware" in wrong.value.hint
    with pytest.raises(MissingError, match="no firmware at") as missing:
        check(tmp_path / "absent.fd")
    assert missing.value.exit_code == 3
