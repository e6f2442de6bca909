"""What all KVM descriptors share: from a request number to the method that answers it."""

from __future__ import annotations

import errno

from plugin.kvm.contract import Memory, NewFile, Rejected, Reply, SharedPages, Wait
from plugin.kvm.device.host import Warnings
from plugin.kvm.uapi.ioctls import Request, served_by
from plugin.kvm.uapi.layout import Layout
from plugin.typing import Any, ClassVar

Answer = Reply | NewFile | Wait


class Call:
    """One ioctl in flight: its row of the table, the argument, and the caller's memory."""

    __slots__ = ("argument", "memory", "row")

    def __init__(self, row: Request, argument: int, memory: Memory) -> None:
        self.row = row
        self.argument = argument
        self.memory = memory

    def read(self, layout: Layout, at: int = 0) -> tuple[Any, ...]:
        """Return the fields of a structure `at` bytes behind the argument. Raises BadAddress."""
        return layout.unpack(self.memory.read(self.argument + at, layout.size))

    def argument_struct(self) -> tuple[Any, ...]:
        """Return the fields of the structure that the request's row names. Raises BadAddress."""
        assert self.row.layout is not None
        return self.read(self.row.layout)

    def word(self) -> int:
        """Return the 64-bit integer the argument points to. Raises BadAddress."""
        return int.from_bytes(self.memory.read(self.argument, 8), "little")

    def write(self, data: bytes, at: int = 0) -> None:
        """Write `at` bytes behind the argument. Raises BadAddress."""
        self.memory.write(self.argument + at, data)

    def reject(self, number: int, why: str) -> Rejected:
        """Return the exception for errno `number`; `why` gets the ioctl's name in front."""
        return Rejected(number, f"{self.row.name}: {why}")


class Descriptor:
    """A file descriptor of the simulated KVM; a subclass has one method for each handler its rows name."""

    kind: str = ""
    _rows: ClassVar[dict[int, Request]] = {}

    def __init_subclass__(cls) -> None:
        cls._rows = served_by(cls.kind)

    def __init__(self, warnings: Warnings) -> None:
        self.warnings = warnings
        self.shared: SharedPages | None = None

    def attached(self, shared: SharedPages) -> None:
        """Keep the pages behind the descriptor; for a vCPU they begin with struct kvm_run."""
        self.shared = shared

    def ioctl(self, request: int, argument: int, memory: Memory) -> Answer:
        """Answer one ioctl. Raises Rejected (ENOTTY for a request that is not simulated), BadAddress."""
        row = self._rows.get(request & 0xFFFFFFFF)
        if row is None:
            raise self.warnings.unknown(self.kind, request & 0xFFFFFFFF)
        answer: Answer = getattr(self, row.handler)(Call(row, argument & 0xFFFFFFFFFFFFFFFF, memory))
        return answer

    def accept(self, call: Call) -> Reply:
        """Succeed with nothing to do: the request has no effect that a VMM could see here."""
        return Reply()

    def get_stats_fd(self, call: Call) -> Reply:
        """Refuse statistics: ENOTTY, as KVM_CAP_BINARY_STATS_FD is 0; some VMMs ask nevertheless."""
        raise call.reject(errno.ENOTTY, "statistics are not simulated")

    def take(self, call: Call) -> Reply:
        """Succeed once the structure has been read: nothing that depends on it is simulated."""
        call.argument_struct()
        return Reply()
