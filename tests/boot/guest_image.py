"""The smallest guest that boots from a disk: a UEFI program, assembled here, on a FAT image.

It prints to COM1, and then does what its kind says. Ports are those of a PC with QEMU's q35 chipset, so it runs the
same in a TD, where the firmware's #VE handler passes the port accesses on.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from pathlib import Path

SECTOR = 512
FATS, FAT_SECTORS, ROOT_ENTRIES, SECTORS = 2, 9, 224, 2880
FIRST_CLUSTER = 1 + FATS * FAT_SECTORS + ROOT_ENTRIES * 32 // SECTOR
"""The sector of cluster 2, on a floppy of 1.44 MB (FAT12, one sector a cluster)."""

GREETING = "tiny guest is up"


class Kind(StrEnum):
    """What the guest does when it has printed its greeting."""

    POLITE = "polite"
    """Waits for the power button, says ``bye`` and switches itself off."""
    DEAF = "deaf"
    """Does not care for the power button."""
    CRASH = "crash"
    """Resets itself by a triple fault."""
    CHATTY = "chatty"
    """Repeats the greeting for ever."""
    OFF = "off"
    """Switches itself off at once."""


PRINT = bytes.fromhex(
    "ac"  # next: lodsb
    "84c0"  # test al, al
    "7414"  # jz done
    "88c4"  # mov ah, al
    "66bafd03"  # ready: mov dx, 0x3fd
    "ec"  # in al, dx
    "a820"  # test al, 0x20
    "74f7"  # jz ready
    "88e0"  # mov al, ah
    "66baf803"  # mov dx, 0x3f8
    "ee"  # out dx, al
    "ebe7"  # jmp next
)
"""Print what RSI points to, up to a NUL."""
POWER_BUTTON = bytes.fromhex(
    "66ba0206"  # mov dx, 0x602 (PM1 enable)
    "66b80001"  # mov ax, 0x100 (PWRBTN_EN)
    "66ef"  # out dx, ax
    "66ba0006"  # poll: mov dx, 0x600 (PM1 status)
    "66ed"  # in ax, dx
    "f6c401"  # test ah, 1 (PWRBTN_STS)
    "74f5"  # jz poll
)
POWER_OFF = bytes.fromhex(
    "66ba0406"  # mov dx, 0x604 (PM1 control)
    "66b80020"  # mov ax, 0x2000 (SLP_EN, S5)
    "66ef"  # out dx, ax
)
FOR_EVER = bytes.fromhex("ebfe")
TRIPLE_FAULT = bytes.fromhex(
    "6a00"  # push 0
    "6a00"  # push 0
    "0f011c24"  # lidt [rsp]
    "cc"  # int3
)


def program(kind: Kind, greeting: str = GREETING) -> bytes:
    """The machine code, position independent, with its texts behind it."""
    say, bye = (text.encode() + b"\r\n\0" for text in (greeting, "bye"))
    after = {
        Kind.POLITE: [POWER_BUTTON, bye, POWER_OFF, FOR_EVER],
        Kind.DEAF: [FOR_EVER],
        Kind.CRASH: [TRIPLE_FAULT],
        Kind.CHATTY: [b"again"],
        Kind.OFF: [POWER_OFF, FOR_EVER],
    }[kind]
    code = _printing(say)
    for part in after:
        if part == b"again":
            code += b"\xe9" + struct.pack("<i", -len(code) - 5)
        else:
            code += _printing(part) if part.endswith(b"\0") and part == bye else part
    return code


def _printing(text: bytes) -> bytes:
    """Code that prints a text which lies behind it, and goes on behind that."""
    # lea rsi, [rip + what follows]; PRINT; jmp over the text
    jump = b"\xe9" + struct.pack("<i", len(text))
    return b"\x48\x8d\x35" + struct.pack("<i", len(PRINT) + len(jump)) + PRINT + jump + text


def pe(code: bytes) -> bytes:
    """A UEFI application (PE32+) with nothing but a code section."""
    size = len(code) + -len(code) % SECTOR
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    coff = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x22E)
    optional = struct.pack("<HBBIIIII", 0x20B, 0, 0, size, 0, 0, 0x1000, 0x1000)
    optional += struct.pack("<QIIHHHHHHIIIIHH", 0, 0x1000, SECTOR, 0, 0, 0, 0, 0, 0, 0, 0x2000, SECTOR, 0, 10, 0)
    optional += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(128)
    section = struct.pack("<8sIIIIIIHHI", b".text", len(code), 0x1000, size, SECTOR, 0, 0, 0, 0, 0x60000020)
    return (dos + b"PE\0\0" + coff + optional + section).ljust(SECTOR, b"\0") + code.ljust(size, b"\0")


def disk(kind: Kind, greeting: str = GREETING) -> bytes:
    """A FAT12 image with the program where UEFI looks for one on a removable disk: EFI/BOOT/BOOTX64.EFI."""
    file = pe(program(kind, greeting))
    clusters = -(-len(file) // SECTOR)
    chain = [0xFF0, 0xFFF, 0xFFF, 0xFFF, *range(5, 4 + clusters), 0xFFF]
    fat = b"".join(_pair(*pair) for pair in zip(chain[::2], [*chain[1::2], 0], strict=False))
    boot = b"\xeb\x3c\x90MSDOS5.0" + struct.pack(
        "<HBHBHHBHHHII", SECTOR, 1, 1, FATS, ROOT_ENTRIES, SECTORS, 0xF0, FAT_SECTORS, 18, 2, 0, 0
    )
    boot += struct.pack("<BBBI11s8s", 0, 0, 0x29, 0x7DC, b"TINY GUEST ", b"FAT12   ")
    image = bytearray(SECTORS * SECTOR)
    image[: len(boot)] = boot
    image[510:512] = b"\x55\xaa"
    for copy in range(FATS):
        start = (1 + copy * FAT_SECTORS) * SECTOR
        image[start : start + len(fat)] = fat
    root = (1 + FATS * FAT_SECTORS) * SECTOR
    image[root : root + 32] = _entry("EFI", 0x10, 2, 0)
    for cluster, content in (
        (2, _entry(".", 0x10, 2, 0) + _entry("..", 0x10, 0, 0) + _entry("BOOT", 0x10, 3, 0)),
        (3, _entry(".", 0x10, 3, 0) + _entry("..", 0x10, 2, 0) + _entry("BOOTX64 EFI", 0x20, 4, len(file))),
        (4, file),
    ):
        start = (FIRST_CLUSTER + cluster - 2) * SECTOR
        image[start : start + len(content)] = content
    return bytes(image)


def _pair(low: int, high: int) -> bytes:
    """Two entries of a FAT12."""
    return bytes((low & 0xFF, low >> 8 | (high & 0xF) << 4, high >> 4))


def _entry(name: str, attributes: int, cluster: int, size: int) -> bytes:
    return struct.pack("<11sB14xHI", name.ljust(11).encode(), attributes, cluster, size)


def write(folder: Path, kind: Kind, greeting: str = GREETING) -> Path:
    """The image as a file."""
    path = folder / f"{kind}.img"
    path.write_bytes(disk(kind, greeting))
    return path
