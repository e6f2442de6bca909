"""What an ioctl said, from the caller's memory: names instead of numbers, fields instead of bytes.

Reads only. What the caller's pointers do not reach is left out, as the ioctl fails with EFAULT there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from plugin.kvm.contract import BadAddress, Memory
from plugin.kvm.conversation.registers import named
from plugin.kvm.uapi import capabilities, proposal
from plugin.kvm.uapi import constants as c
from plugin.kvm.uapi import structs as s
from plugin.kvm.uapi.cpuid import unpack
from plugin.kvm.uapi.ioctls import READ, WRITE, Request, served_by
from plugin.kvm.uapi.layout import Layout
from plugin.typing import Any

_MOST_MSRS = 256
_SUBCOMMANDS = c.TDX_SUBCOMMANDS | proposal.SUBCOMMANDS
_SKIPPED = ("reserved", "padding", "pad")
_KVM_MEMORY_ENCRYPT_OP = "KVM_MEMORY_ENCRYPT_OP"
_TDX_LISTS: dict[int, Layout] = {
    c.TDX_CAPABILITIES: s.TDX_CAPABILITIES,
    c.TDX_INIT_VM: s.TDX_INIT_VM,
    c.TDX_INIT_MEM_REGION: s.TDX_INIT_MEM_REGION,
    c.TDX_GET_CPUID: s.CPUID2,
    proposal.TDX_GET_CONFIG_CPUID: s.CPUID2,
    proposal.TDX_INIT_VCPU_CPUID: proposal.TDX_INIT_VCPU_CPUID_HEAD,
}
_VM_TYPES = {
    c.X86_DEFAULT_VM: "KVM_X86_DEFAULT_VM",
    c.X86_TDX_VM: "KVM_X86_TDX_VM",
}
_WRITTEN_BY_KVM = (
    c.TDX_CAPABILITIES, c.TDX_GET_CPUID, proposal.TDX_GET_CONFIG_CPUID, proposal.TDX_INIT_VCPU_CPUID
)  # fmt: skip

_ASKED_OF_KVM = {"nent", "cpuid_nent", "leaves", "nr_leaves"}
"""What a caller says in a structure that KVM fills."""


class Decoder:
    """One ioctl, looked at before and after it is answered."""

    __slots__ = ("_argument", "_memory", "_row", "name")

    def __init__(self, kind: str, request: int, argument: int, memory: Memory) -> None:
        self._row = served_by(kind).get(request)
        self.name = self._row.name if self._row else f"ioctl {request:#010x}"
        self._argument = argument
        self._memory = memory

    def before(self) -> dict[str, Any]:
        """What the caller says: the argument, or the structure behind it."""
        row = self._row
        if row is None:
            return {"argument": self._argument}
        if row.name == "KVM_CHECK_EXTENSION":
            return {"capability": capabilities.name(self._argument)}
        if row.name == "KVM_CREATE_VM" and self._argument in _VM_TYPES:
            return {"argument": self._argument, "type": _VM_TYPES[self._argument]}
        if row.layout is None and not row.number >> 16:
            return {"argument": self._argument} if self._argument else {}
        return self._attempt(self._said)

    def after(self) -> dict[str, Any]:
        """What KVM wrote to the caller; empty for requests that only take."""
        row = self._row
        if row is None or not row.number >> 30 & READ or row.name.startswith("KVM_SET_"):
            return {}
        return self._attempt(self._written)

    def tells_when_refused(self, number: int) -> bool:
        """Whether KVM writes to the caller although it fails with that errno: how much room a list needs."""
        return number == errno.E2BIG and self.name in ("KVM_GET_MSR_INDEX_LIST", "KVM_GET_MSR_FEATURE_INDEX_LIST")

    @staticmethod
    def _attempt(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return read()
        except BadAddress as bad:
            return {"unreadable": str(bad)}

    def _said(self) -> dict[str, Any]:
        assert self._row is not None
        row = self._row
        if row.name == _KVM_MEMORY_ENCRYPT_OP:
            return self._tdx(after=False)
        if not (row.number >> 30 & WRITE or row.name.startswith("KVM_SET_")):
            return {}
        said = self._fields(row)
        if row.name == "KVM_ENABLE_CAP":
            said["cap"] = capabilities.name(int(said["cap"]))
        if row.name == "KVM_SET_CPUID2":
            said["entries"] = self._entries(self._argument + s.CPUID2.size, said.pop("nent"))
        elif row.name in ("KVM_SET_MSRS", "KVM_GET_MSRS"):
            said["entries"] = self._msrs(said.pop("nmsrs"), values=row.name == "KVM_SET_MSRS")
        return said

    def _written(self) -> dict[str, Any]:
        assert self._row is not None
        row = self._row
        if row.name == _KVM_MEMORY_ENCRYPT_OP:
            return self._tdx(after=True)
        said = self._fields(row)
        if row.layout is s.CPUID2:
            said["entries"] = self._entries(self._argument + s.CPUID2.size, said.pop("nent"))
        elif row.layout is s.MSRS:
            said["entries"] = self._msrs(said.pop("nmsrs"), values=True)
        elif row.layout is s.MSR_LIST:
            count = said.pop("nmsrs")
            raw = self._memory.read(self._argument + s.MSR_LIST.size, 4 * min(count, _MOST_MSRS))
            said["indices"] = [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]
        return said

    def _fields(self, row: Request) -> dict[str, Any]:
        if row.layout is None:  # one integer
            size = row.number >> 16 & 0x3FFF
            return {"value": int.from_bytes(self._memory.read(self._argument, size), "little")}
        data = self._memory.read(self._argument, row.layout.size)
        registers = named(row.layout, data)
        return fields(row.layout, data) if registers is None else registers

    def _tdx(self, *, after: bool) -> dict[str, Any]:
        command, flags, data, hw_error = s.TDX_CMD.unpack(self._memory.read(self._argument, s.TDX_CMD.size))
        said: dict[str, Any] = {} if after else {"command": _SUBCOMMANDS.get(command, command)}
        said |= {"flags": flags} if flags and not after else {}
        said |= {"hw_error": hw_error} if hw_error else {}
        layout = _TDX_LISTS.get(command)
        if layout is None:
            return said | ({"data": data} if data and not after else {})
        written = command in _WRITTEN_BY_KVM
        if after and not written:
            return said
        values = fields(layout, self._memory.read(data, layout.size))
        said |= values if after or not written else {key: values[key] for key in values.keys() & _ASKED_OF_KVM}
        count = said.get("cpuid_nent", said.get("nent"))
        if command == proposal.TDX_INIT_VCPU_CPUID:
            said["asked"] = self._leaves(said.pop("leaves", 0), said.pop("nr_leaves", 0))
        if (after or command == c.TDX_INIT_VM) and count is not None:
            said["entries"] = self._entries(data + layout.size, count)
        return said

    def _entries(self, address: int, count: int) -> list[dict[str, int]]:
        size = min(count, c.MAX_CPUID_ENTRIES) * s.CPUID_ENTRY2.size
        raw = self._memory.read(address, size) if size else b""
        # KVM leaves the flag out in what is configurable, and means the index nevertheless.
        return [
            e.as_json() | ({"index": e.subleaf} if e.subleaf and e.leaf.subleaf is None else {}) for e in unpack(raw)
        ]

    def _leaves(self, address: int, count: int) -> list[dict[str, int]]:
        layout = proposal.TDX_CPUID_LEAF
        raw = self._memory.read(address, layout.size * min(count, proposal.MAX_LEAVES)) if count else b""
        return [fields(layout, raw[at : at + layout.size]) for at in range(0, len(raw), layout.size)]

    def _msrs(self, count: int, *, values: bool) -> list[dict[str, int]]:
        size = s.MSR_ENTRY.size
        raw = self._memory.read(self._argument + s.MSRS.size, size * min(count, _MOST_MSRS)) if count else b""
        found = []
        for at in range(0, len(raw), size):
            index, _, data = s.MSR_ENTRY.unpack(raw, at)
            found.append({"index": index, "data": data} if values else {"index": index})
        return found


def fields(layout: Layout, data: bytes) -> dict[str, Any]:
    """Name a structure's values; bytes in hex without the zeros at their end. Padding is left out where it is 0."""
    named: dict[str, Any] = {}
    for name, value in zip(layout.fields, layout.unpack(data), strict=True):
        shown = value.rstrip(b"\0").hex() if isinstance(value, bytes) else value
        if shown or not any(word in name for word in _SKIPPED):
            named[name] = shown
    return named
