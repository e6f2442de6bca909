"""The descriptors handed out, and which of them an ioctl is for."""

from __future__ import annotations

import fcntl
import mmap
import os

from plugin.kvm.contract import Device, NewFile

FEW = 16


class KvmFile:
    """A memfd that stands for one KVM object, held through two open files: theirs and ours."""

    __slots__ = ("device", "identity", "ours", "pages", "theirs")

    def __init__(self, new: NewFile) -> None:
        memfd = os.memfd_create(new.name, os.MFD_CLOEXEC)
        opened = []
        try:
            os.ftruncate(memfd, new.size)
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
        self.pages: mmap.mmap | None = None

    def handed_over(self) -> None:
        """Forget our copy of the caller's descriptor, and show a vCPU its pages."""
        os.close(self.theirs)
        self.theirs = -1
        if self.device is not None and self.device.kind == "vcpu":
            self.pages = mmap.mmap(self.ours, 0)
            self.device.attached(self.pages)

    @property
    def in_use(self) -> bool:
        """Whether anyone else still has it open or mapped, through whatever dup, fork or SCM_RIGHTS.

        A write lease is granted only to the one and only writer. Our own mapping is of our open file.
        """
        try:
            fcntl.fcntl(self.ours, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(self.ours, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return True  # EAGAIN; any other means that leases do not work here: keep it until the end
        return False

    def close(self) -> None:
        """Give the memfd back. The pages are freed when the device has let go of them."""
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

    def add(self, file: KvmFile) -> None:
        """Take charge of a descriptor that a process has received."""
        file.handed_over()
        if file.device is None:
            file.close()  # plain memory: the process's own copy is enough
        else:
            self._files[file.identity] = file

    def find(self, tid: int, descriptor: int) -> KvmFile | None:
        """Return what a descriptor of thread `tid` leads to, None if it is none of ours."""
        try:
            status = os.stat(f"/proc/{tid}/fd/{descriptor}")
        except OSError:
            return None
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
