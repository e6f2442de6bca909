"""The memory of the process whose call is being answered."""

from __future__ import annotations

from plugin.kvm.contract import BadAddress
from plugin.kvm.supervisor.kernel import read_memory, write_memory

_PAGE = 4096


class ProcessMemory:
    """Reads and writes with the process's own page rights, so a wild pointer fails as it would in the kernel.

    process_vm_readv rather than /proc/PID/mem: the latter also writes where the process itself could not.
    """

    __slots__ = ("_inputs", "_tid", "_written")

    def __init__(self, tid: int) -> None:
        self._tid = tid
        self._inputs: list[tuple[int, bytes]] = []
        self._written = False

    def read(self, address: int, size: int) -> bytes:
        """Return exactly `size` bytes. Raises BadAddress."""
        try:
            data = read_memory(self._tid, address, size)
        except OSError as error:
            raise BadAddress(address, size) from error
        if len(data) != size:
            raise BadAddress(address, size)
        self._inputs.append((address, data))
        return data

    def write(self, address: int, data: bytes) -> None:
        """Write all of `data`. Raises BadAddress; a part may have been written then."""
        self._written = True
        try:
            count = write_memory(self._tid, address, data)
        except OSError as error:
            raise BadAddress(address, len(data)) from error
        if count != len(data):
            raise BadAddress(address, len(data))

    def restore(self) -> None:
        """Put back what was read before something was written.

        For a call that a signal has ended: it will be repeated, and must find the same input.
        """
        if not self._written:
            return
        for address, data in reversed(self._inputs):
            try:
                write_memory(self._tid, address, data)
            except OSError:
                return  # the caller has died

    def read_path(self, address: int) -> bytes:
        """Return a NUL-terminated string of at most PATH_MAX bytes. Raises BadAddress."""
        path = b""
        while len(path) < _PAGE:
            # Never across a page boundary at once: the next page need not exist.
            chunk = self.read(address, _PAGE - address % _PAGE)
            text, end, _ = chunk.partition(b"\0")
            path += text
            if end:
                return path
            address += len(chunk)
        raise BadAddress(address, 1)
