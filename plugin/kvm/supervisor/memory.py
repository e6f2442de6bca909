"""The memory of the process whose call is being answered."""

from __future__ import annotations

import errno
import os

from plugin.kvm.contract import BadAddress
from plugin.kvm.supervisor.kernel import read_memory, write_memory

_PAGE = _PATH_MAX = 4096
_WRONG = (errno.EFAULT, errno.ESRCH)
"""What process_vm_readv and process_vm_writev say of the caller; all else is said of us."""


class Unreadable(BadAddress):
    """The caller's memory is closed to us. It is not dumpable, and we are not root; or something around us forbids."""


class ProcessMemory:
    """Reads and writes with the process's own page rights, so a wild pointer fails as it would in the kernel.

    process_vm_readv and process_vm_writev, or where a filter around us denies them, /proc/PID/mem. That one reads and
    writes whatever the process itself could not: before a write we look what the process may.
    """

    __slots__ = ("_inputs", "_tid", "_written")

    def __init__(self, tid: int) -> None:
        self._tid = tid
        self._inputs: list[tuple[int, bytes]] = []
        self._written = False

    def read(self, address: int, size: int) -> bytes:
        """Return exactly `size` bytes. Raises BadAddress, Unreadable."""
        try:
            data = read_memory(self._tid, address, size)
        except OSError as error:
            if error.errno in _WRONG:
                raise BadAddress(address, size) from error
            data = self._read_file(address, size)
        if len(data) != size:
            raise BadAddress(address, size)
        self._inputs.append((address, data))
        return data

    def write(self, address: int, data: bytes) -> None:
        """Write all of `data`. Raises BadAddress, Unreadable; a part may have been written then."""
        self._written = True
        try:
            count = write_memory(self._tid, address, data)
        except OSError as error:
            if error.errno in _WRONG:
                raise BadAddress(address, len(data)) from error
            count = self._write_file(address, data)
        if count != len(data):
            raise BadAddress(address, len(data))

    def _open(self, flags: int, address: int, size: int) -> int:
        try:
            return os.open(f"/proc/{self._tid}/mem", flags | os.O_CLOEXEC)
        except OSError as error:
            raise Unreadable(address, size) from error

    def _read_file(self, address: int, size: int) -> bytes:
        file = self._open(os.O_RDONLY, address, size)
        try:
            return os.pread(file, size, address)
        except (OSError, OverflowError) as error:
            raise BadAddress(address, size) from error
        finally:
            os.close(file)

    def _write_file(self, address: int, data: bytes) -> int:
        file = self._open(os.O_RDWR, address, len(data))
        try:
            if not self._may_write(address, address + len(data)):
                raise BadAddress(address, len(data))
            return os.pwrite(file, data, address)
        except (OSError, OverflowError) as error:
            raise BadAddress(address, len(data)) from error
        finally:
            os.close(file)

    def _may_write(self, start: int, end: int) -> bool:
        with open(f"/proc/{self._tid}/maps", "rb") as maps:
            for line in maps:
                bounds, rights = line.split(maxsplit=2)[:2]
                first, last = (int(bound, 16) for bound in bounds.split(b"-"))
                if first <= start < last:
                    if b"w" not in rights:
                        return False
                    start = last
                if start >= end:
                    return True
        return False

    def restore(self) -> None:
        """Put back what was read before something was written.

        For a call that a signal has ended: it will be repeated, and must find the same input.
        """
        if not self._written:
            return
        for address, data in reversed(self._inputs):
            try:
                self.write(address, data)
            except BadAddress:
                return  # the caller has died

    def read_path(self, address: int) -> bytes:
        """Return a NUL-terminated string of at most PATH_MAX bytes.

        Raises BadAddress, Unreadable, OSError (ENAMETOOLONG).
        """
        path = b""
        while len(path) < _PATH_MAX:
            # Never across a page boundary at once: the next page need not exist.
            chunk = self.read(address, _PAGE - address % _PAGE)
            text, end, _ = chunk.partition(b"\0")
            path += text
            if end and len(path) < _PATH_MAX:
                return path
            address += len(chunk)
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
