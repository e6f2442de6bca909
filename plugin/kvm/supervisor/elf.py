"""Just enough ELF (x86-64, little endian) to find code and the extent of functions, also in stripped files.

Sources: the System V ABI's ELF and AMD64 chapters, and the Linux Standard Base on .eh_frame and .eh_frame_hdr.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap

from plugin.typing import NamedTuple

_PT_LOAD, _PT_GNU_EH_FRAME = 1, 0x6474E550
_PF_X = 1
_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_STT_FUNC = 2
_EM_X86_64 = 62
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")

# DWARF pointer encodings.
_TABLE_OF_RELATIVE_PAIRS = 0x3B  # datarel | sdata4: the only form that linkers write
_UDATA4 = 0x03
_POINTER_FORMATS = {0x00: "<Q", 0x03: "<I", 0x04: "<Q", 0x0B: "<i", 0x0C: "<q"}


class NotElf(Exception):
    """The file is not a 64-bit x86 ELF file, or damaged."""


class Segment(NamedTuple):
    """A part of the file that is loaded: addresses are those of the file, before any load offset."""

    offset: int
    address: int
    size: int
    executable: bool


class Function(NamedTuple):
    """A stretch of code that starts with an instruction."""

    start: int
    end: int


class Elf:
    """A mapped ELF file."""

    __slots__ = ("_eh_frame_header", "_image", "_sections", "entry", "segments")

    def __init__(self, image: mmap | bytes) -> None:
        """Read the headers. Raises NotElf."""
        try:
            identity, _, machine, _, entry, programs, sections, _, _, size, count, section_size, n, _ = (
                _HEADER.unpack_from(image)
            )
            if identity[:6] != b"\x7fELF\x02\x01" or machine != _EM_X86_64:
                raise NotElf("not a 64-bit x86 ELF file")
            headers = [_PROGRAM_HEADER.unpack_from(image, programs + i * size) for i in range(count)]
            self._sections = [_SECTION_HEADER.unpack_from(image, sections + i * section_size) for i in range(n)]
        except struct.error as error:
            raise NotElf(f"damaged ELF headers: {error}") from error
        self._image = image
        self.entry: int = entry
        self.segments = [
            Segment(offset, address, file_size, bool(flags & _PF_X))
            for kind, flags, offset, address, _, file_size, _, _ in headers
            if kind == _PT_LOAD
        ]
        self._eh_frame_header = next((h[3] for h in headers if h[0] == _PT_GNU_EH_FRAME), None)

    def find_code(self, pattern: bytes) -> Iterator[int]:
        """Yield the addresses in executable segments where these bytes stand, instruction or not."""
        for segment in self.segments:
            if not segment.executable:
                continue
            end = segment.offset + segment.size
            at = self._image.find(pattern, segment.offset, end)
            while at >= 0:
                yield at - segment.offset + segment.address
                at = self._image.find(pattern, at + 1, end)

    def bytes_at(self, address: int, size: int) -> bytes:
        """Return loaded bytes by address. Raises NotElf if no segment has them."""
        offset = self._offset(address)
        return bytes(self._image[offset : offset + size])

    def function_around(self, address: int) -> Function | None:
        """Return the function that covers `address` by unwind information, else by symbols; None if unknown."""
        try:
            return self._by_unwind_table(address) or self._by_symbol(address)
        except (struct.error, IndexError) as error:
            raise NotElf(f"damaged unwind or symbol table: {error}") from error

    def _offset(self, address: int) -> int:
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.size:
                return segment.offset + address - segment.address
        raise NotElf(f"no segment holds address {address:#x}")

    def _int(self, layout: str, address: int) -> int:
        value: int = struct.unpack_from(layout, self._image, self._offset(address))[0]
        return value

    def _by_unwind_table(self, address: int) -> Function | None:
        """Search the sorted table of .eh_frame_hdr, then take the extent from the entry it points to."""
        base = self._eh_frame_header
        if base is None:
            return None
        version, pointer_form, count_form, table_form = self.bytes_at(base, 4)
        pointer_layout = _POINTER_FORMATS.get(pointer_form & 0x0F)
        if (version, count_form, table_form) != (1, _UDATA4, _TABLE_OF_RELATIVE_PAIRS) or not pointer_layout:
            return None
        table = base + 4 + struct.calcsize(pointer_layout)
        low, high = 0, self._int("<I", table)
        table += 4
        while low < high:  # the last entry that does not start behind the address
            middle = (low + high) // 2
            if base + self._int("<i", table + 8 * middle) <= address:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            return None
        start = base + self._int("<i", table + 8 * (low - 1))
        size = self._frame_size(base + self._int("<i", table + 8 * (low - 1) + 4))
        return Function(start, start + size) if address < start + size else None

    def _frame_size(self, entry: int) -> int:
        """Return how many bytes of code a frame description entry covers."""
        body = entry + 4
        if self._int("<I", entry) == 0xFFFFFFFF:
            body += 8
        common = body - self._int("<I", body)
        layout = _POINTER_FORMATS[self._pointer_encoding(common) & 0x0F]
        return self._int(layout, body + 4 + struct.calcsize(layout))

    def _pointer_encoding(self, common: int) -> int:
        """Return the pointer encoding that a common information entry gives for its frames."""
        body = common + (12 if self._int("<I", common) == 0xFFFFFFFF else 4) + 4
        data = self.bytes_at(body, 64)
        augmentation, _, rest = data[1:].partition(b"\0")
        if not augmentation.startswith(b"z"):
            return 0
        for _ in range(2):  # code and data alignment
            rest = _skip_leb128(rest)
        rest = _skip_leb128(rest)  # return address register
        rest = _skip_leb128(rest)  # size of what follows
        for letter in augmentation[1:]:
            if letter == ord("R"):
                return rest[0]
            if letter == ord("P"):
                rest = rest[1 + struct.calcsize(_POINTER_FORMATS[rest[0] & 0x0F]) :]
            elif letter == ord("L"):
                rest = rest[1:]
        return 0

    def _by_symbol(self, address: int) -> Function | None:
        for _, kind, _, _, offset, size, _, _, _, entry_size in self._sections:
            if kind not in (_SHT_SYMTAB, _SHT_DYNSYM) or entry_size != _SYMBOL.size:
                continue
            whole = size - size % _SYMBOL.size
            for _, info, _, _, value, length in _SYMBOL.iter_unpack(self._image[offset : offset + whole]):
                if info & 0x0F == _STT_FUNC and value <= address < value + length:
                    return Function(value, value + length)
        return None


def _skip_leb128(data: bytes) -> bytes:
    for index, byte in enumerate(data):
        if byte < 0x80:
            return data[index + 1 :]
    return b""
