"""The descriptors handed out, and which of them an ioctl is for."""

from __future__ import annotations

import errno
import fcntl
import os

from plugin.kvm.contract import Device, NewFile

FEW = 16
SPARE = 10
"""So many descriptors we keep for looking at processes: an open that we cannot look at is refused."""

_F_ADD_SEALS = 1033
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1, 2, 4


class Pages:
    """The pages of a vCPU, through a descriptor: whatever the command does to its own, we read at most nothing."""

    __slots__ = ("_descriptor", "_size")

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size

    def __len__(self) -> int:
        return self._size

    def close(self) -> None:
        """Nobody has the vCPU any more, and its descriptor's number may soon mean another file."""
        self._descriptor = -1

    def __getitem__(self, index: slice) -> bytes:
        start, stop, _ = index.indices(self._size)
        return os.pread(self._descriptor, stop - start, start)

    def __setitem__(self, index: slice, value: bytes) -> None:
        start, stop, _ = index.indices(self._size)
        os.pwrite(self._descriptor, value[: stop - start], start)


class KvmFile:
    """A memfd that stands for one KVM object, held through two open files: theirs and ours.

    Its size is sealed, as that of KVM's own files cannot be changed either.
    """

    __slots__ = ("device", "identity", "ours", "pages", "theirs")

    def __init__(self, new: NewFile) -> None:
        """Make it. Raises OSError: EMFILE, ENFILE, ENOMEM; EFBIG above RLIMIT_FSIZE; what a filter around us says."""
        memfd = os.memfd_create(new.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        opened = []
        try:
            os.ftruncate(memfd, new.size)
            fcntl.fcntl(memfd, _F_ADD_SEALS, _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW)
            # Opened by name, the kernel counts each as a writer, which is what `in_use` asks for.
            for _ in range(2):
                opened.append(os.open(f"/proc/self/fd/{memfd}", os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        finally:
            os.close(memfd)
        self.device: Device | None = new.handler
        self.theirs, self.ours = opened
        status = os.fstat(self.ours)
        self.identity = status.st_dev, status.st_ino
        self.pages: Pages | None = None

    def handed_over(self) -> None:
        """Forget our copy of the caller's descriptor, and show a vCPU its pages."""
        os.close(self.theirs)
        self.theirs = -1
        if self.device is not None and self.device.kind == "vcpu":
            self.pages = Pages(self.ours, os.fstat(self.ours).st_size)
            self.device.attached(self.pages)

    @property
    def in_use(self) -> bool:
        """Whether anyone else still has it open or mapped, through whatever dup, fork or SCM_RIGHTS.

        A write lease is granted only to the one and only writer.
        """
        try:
            fcntl.fcntl(self.ours, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(self.ours, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return True  # EAGAIN; any other means that leases do not work here: keep it until the end
        return False

    def close(self) -> None:
        """Give the memfd back; its device may live longer."""
        if self.pages is not None:
            self.pages.close()
        for descriptor in (self.theirs, self.ours):
            if descriptor >= 0:
                os.close(descriptor)
        self.theirs = self.ours = -1


class FileTable:
    """All KVM objects of one command, found by inode: whatever number a process knows them by."""

    __slots__ = ("_enough", "_files")

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], KvmFile] = {}
        self._enough = FEW
        """So many files may there be before it is worth asking which of them are in use."""

    def __len__(self) -> int:
        return len(self._files)

    def make(self, new: NewFile) -> KvmFile:
        """Make a file to hand over, with all the room that there is. Raises OSError, EMFILE when that is not enough."""
        self.release_if_many()
        try:
            return _with_spare(new)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.EFBIG):
                raise
        raise_soft_limits()
        self.release_unused()
        return _with_spare(new)

    def add(self, file: KvmFile) -> None:
        """Take charge of a descriptor that a process has received."""
        file.handed_over()
        if file.device is None:
            file.close()  # plain memory: the process's own copy is enough
        else:
            self._files[file.identity] = file

    def find(self, tid: int, descriptor: int) -> KvmFile | None:
        """Return what a descriptor of thread `tid` leads to, None if it is none of ours.

        Raises FileNotFoundError if the thread has no such descriptor, PermissionError where we may not look.
        """
        status = os.stat(f"/proc/{tid}/fd/{descriptor}")
        return self._files.get((status.st_dev, status.st_ino))

    def release_if_many(self) -> None:
        """Release what is unused once the table has doubled: asking costs as much as there are files."""
        if len(self._files) >= self._enough:
            self.release_unused()
            self._enough = max(FEW, 2 * len(self._files))

    def release_unused(self) -> None:
        """Close what no process holds any more, so that a long-lived command can start many VMMs."""
        for identity, file in list(self._files.items()):
            if not file.in_use:
                file.close()
                del self._files[identity]


def raise_soft_limits() -> None:
    """Let this process have as many descriptors, and as large files, as it may; the command keeps its own limits."""
    import resource  # noqa: PLC0415 - few commands need that

    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
        hard = resource.getrlimit(limit)[1]
        try:
            resource.setrlimit(limit, (hard, hard))
        except (OSError, ValueError):
            continue  # a filter around us


def _with_spare(new: NewFile) -> KvmFile:
    file = KvmFile(new)
    limit = os.sysconf("SC_OPEN_MAX")
    if 0 < limit <= file.ours + SPARE:
        file.close()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return file
