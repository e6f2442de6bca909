"""Where a path leads, as a process of the command sees it: its root, its directory, its mounts, its own /proc/self.

Nothing is opened on the way (O_PATH), so no driver hears of it. What is asked here is asked of another process: its
mount namespace and root may differ from ours, `/proc/self` means somebody else, and so do all links that lead there
(/dev/fd, /dev/stdin). The usual path has none of that, and one openat2(2) that would stumble over it answers.
"""

from __future__ import annotations

import errno
import os
import stat

from plugin.kvm.supervisor import kernel
from plugin.typing import NamedTuple

_SYMLINK_LIMIT = 40
_PROC_ROOT_INODE = 1
_PLACE = os.O_PATH | os.O_CLOEXEC


class Place(NamedTuple):
    """What a path leads to."""

    status: os.stat_result | None
    """None: there is nothing, or the path's last part is a symlink that is not to be followed."""
    folder: tuple[int, int] | None = None
    """Device and inode of the directory that has it, and its name there; None if that was not looked for."""
    name: bytes = b""


def caller(tid: int, what: bytes) -> int:
    """Return an O_PATH descriptor of ``root``, ``cwd`` or ``fd/N`` of thread `tid`. Raises OSError."""
    return os.open(b"/proc/%d/%b" % (tid, what), _PLACE)


def quick_look(start: int, path: bytes, *, from_root: bool) -> Place | None:
    """Look from `start`, the caller's root or another directory, with one call or two; None if only `walk` can tell.

    So it is for links into /proc, for what may be there for the caller only, and where a filter around us denies the
    call.
    """
    if from_root:
        resolve = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
    elif b".." in path:
        return None  # it might climb above the caller's root, which is no border for us
    else:
        resolve = kernel.RESOLVE_NO_SYMLINKS
    try:
        found = kernel.open_place(start, path, resolve)
    except OSError as error:
        return _missing(start, path, resolve) if error.errno == errno.ENOENT else None
    try:
        return Place(os.fstat(found))
    finally:
        os.close(found)


def _missing(start: int, path: bytes, resolve: int) -> Place | None:
    """Tell whether some directory on the way exists, and no such name in it, so that the path leads nowhere."""
    folder, _, name = path.rpartition(b"/")
    last = True
    while name not in (b"", b".", b".."):
        try:
            found = kernel.open_place(start, folder or b".", resolve)
        except OSError as error:
            if error.errno != errno.ENOENT or not folder:
                return None
            folder, _, name = folder.rpartition(b"/")
            last = False
            continue
        try:
            if not kernel.is_procfs(found):  # else it is perhaps ours, where the caller would find its own
                os.stat(name, dir_fd=found, follow_symlinks=False)
        except FileNotFoundError:
            return Place(None, _identity(os.fstat(found)), name) if last else Place(None)
        finally:
            os.close(found)
        return None  # a symlink that leads on
    return None


def walk(tid: int, root: int, start: int, path: bytes, *, follow: bool = True) -> Place:
    """Look part by part, as the kernel does for thread `tid`, whose `root` this is. Raises OSError.

    `follow`: whether a symlink at the end is followed.
    """
    walker = _Walk(tid, root, start)
    try:
        return walker.go(path, follow)
    finally:
        walker.close()


class _Walk:
    __slots__ = ("_here", "_links", "_root", "_tid")

    def __init__(self, tid: int, root: int, start: int) -> None:
        self._tid = tid
        self._root = root
        self._here = os.dup(start)
        self._links = 0

    def close(self) -> None:
        os.close(self._here)

    def _enter(self, descriptor: int) -> None:
        os.close(self._here)
        self._here = descriptor

    def go(self, path: bytes, follow: bool) -> Place:
        parts: list[bytes] = []
        self._put(path, parts)
        while parts:
            part = parts.pop(0)
            if part == b"..":
                if not self._at_root():
                    self._enter(os.open(b"..", _PLACE, dir_fd=self._here))
                continue
            try:
                status = os.stat(part, dir_fd=self._here, follow_symlinks=False)
            except FileNotFoundError:
                if parts:
                    raise
                return Place(None, _identity(os.fstat(self._here)), part)
            if stat.S_ISLNK(status.st_mode):
                if not parts and not follow:
                    return Place(None)
                self._follow(part, parts)
            elif parts:
                self._enter(os.open(part, _PLACE | os.O_NOFOLLOW, dir_fd=self._here))
            else:
                return Place(status, _identity(os.fstat(self._here)), part)
        return Place(os.fstat(self._here))

    def _put(self, path: bytes, parts: list[bytes]) -> None:
        """Put the parts of a path in front of those that are still to go; an absolute one begins at the root."""
        if path.startswith(b"/"):
            self._enter(os.dup(self._root))
        parts[:0] = [part for part in path.split(b"/") if part not in (b"", b".")]

    def _follow(self, name: bytes, parts: list[bytes]) -> None:
        self._links += 1
        if self._links > _SYMLINK_LIMIT:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = self._target(name)
        if target is None:
            self._enter(os.open(name, _PLACE, dir_fd=self._here))  # the kernel jumps to the object
        else:
            self._put(target, parts)

    def _target(self, name: bytes) -> bytes | None:
        """Return where a symlink points, as the caller sees it; None for a link to an object, not to a name."""
        if not kernel.is_procfs(self._here):
            return os.readlink(name, dir_fd=self._here)
        if os.fstat(self._here).st_ino != _PROC_ROOT_INODE:
            return None
        if name == b"self":
            return b"%d" % self._numbers()[0]
        if name == b"thread-self":
            return b"%d/task/%d" % self._numbers()
        return os.readlink(name, dir_fd=self._here)

    def _numbers(self) -> tuple[int, int]:
        """Return the caller's process and thread, as the proc file system that we stand in counts them."""
        with open(f"/proc/{self._tid}/status", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file if line.startswith((b"NStgid:", b"NSpid:")))
        began = _start_time(os.open(f"/proc/{self._tid}/stat", os.O_RDONLY | os.O_CLOEXEC))
        for process, thread in zip(fields[b"NStgid"].split(), fields[b"NSpid"].split(), strict=True):
            name = b"%b/task/%b/stat" % (process, thread)
            try:
                if _start_time(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._here)) == began:
                    return int(process), int(thread)
            except OSError:
                continue  # a number of another PID namespace
        raise OSError(errno.ENOENT, "the caller is not in this proc file system")

    def _at_root(self) -> bool:
        """Whether we stand in the caller's root, above which ``..`` does not lead.

        A bind mount of it is another place, which has the same inode.
        """
        if _identity(os.fstat(self._here)) != _identity(os.fstat(self._root)):
            return False
        return _mount(self._here) == _mount(self._root)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _mount(descriptor: int) -> bytes:
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))


def _start_time(descriptor: int) -> bytes:
    """Read a process's start from its ``stat`` file and close that; it stands 20th behind the name in parentheses."""
    try:
        return os.read(descriptor, 4096).rpartition(b")")[2].split()[19]
    finally:
        os.close(descriptor)
