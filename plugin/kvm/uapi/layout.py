"""A C structure as its fields, sizes and offsets: little endian, padding written out."""

from __future__ import annotations

import struct

from plugin.typing import Any


class Layout:
    """One structure of the kernel's user interface.

    Fields are given in order as `name="code"`, the code being one of `struct`'s: "I" is a __u32, "48s" is 48
    bytes. Nothing is aligned behind your back; a padding the compiler would insert is a field of its own.
    """

    __slots__ = ("_offsets", "_struct", "fields", "name", "size")

    def __init__(self, name: str, **fields: str) -> None:
        self.name = name
        self.fields = fields
        self._struct = struct.Struct("<" + "".join(fields.values()))
        self.size = self._struct.size
        self._offsets: dict[str, int] = {}
        at = 0
        for field, code in fields.items():
            self._offsets[field] = at
            at += struct.calcsize("<" + code)

    def __repr__(self) -> str:
        return f"<struct {self.name}, {self.size} bytes>"

    def offset(self, field: str) -> int:
        """Return a field's distance from the start, in bytes. Raises KeyError for an unknown name."""
        return self._offsets[field]

    def pack(self, *values: int | bytes) -> bytes:
        """Return the structure with these values in field order. Raises struct.error if they do not fit."""
        return self._struct.pack(*values)

    def unpack(self, data: bytes, at: int = 0) -> tuple[Any, ...]:
        """Return the values in field order, from `data` at byte `at`. Raises struct.error if it is too short."""
        return self._struct.unpack_from(data, at)
