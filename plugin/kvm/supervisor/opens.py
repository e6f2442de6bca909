"""Is this open(2) meant for /dev/kvm?

The answer is a convenience for programs that cooperate, not a security boundary: the path is read before the
kernel reads it again, another thread may change it or a symlink in between, and io_uring opens files without
seccomp noticing.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import struct

from plugin.kvm.supervisor import bpf
from plugin.kvm.supervisor.listener import Call
from plugin.kvm.supervisor.memory import ProcessMemory
from plugin.typing import NamedTuple

DEV_KVM = b"/dev/kvm"
_KVM_DEVICE = os.makedev(10, 232)
_AT_FDCWD = -100
_RESOLVE_IN_ROOT = 0x10
_OPEN_HOW = struct.Struct("<QQQ")
_SYMLINK_LIMIT = 40


class Open(NamedTuple):
    """An open of any of the three kinds, with its path still unresolved."""

    directory: int  # _AT_FDCWD or a descriptor of the caller
    path: bytes
    flags: int
    in_root: bool  # openat2's RESOLVE_IN_ROOT: the directory is the root for this one call


def decode_open(call: Call, memory: ProcessMemory) -> Open:
    """Read the arguments of open, openat or openat2. Raises BadAddress."""
    number = call.number & ~bpf.X32_BIT
    first, second, third, fourth = call.arguments
    if number == bpf.SYS_OPEN:
        return Open(_AT_FDCWD, memory.read_path(first), second, False)
    directory = (first & 0xFFFFFFFF ^ 0x80000000) - 0x80000000  # a C int
    path = memory.read_path(second)
    if number == bpf.SYS_OPENAT:
        return Open(directory, path, third, False)
    # A struct shorter than its first version is refused by the kernel itself.
    how = memory.read(third, _OPEN_HOW.size) if fourth >= _OPEN_HOW.size else bytes(_OPEN_HOW.size)
    flags, _, resolve = _OPEN_HOW.unpack(how)
    return Open(directory, path, flags, bool(resolve & _RESOLVE_IN_ROOT))


def means_kvm(tid: int, wanted: Open) -> bool:
    """Tell whether the open leads to /dev/kvm, seen from the root and directory of thread `tid`."""
    path = wanted.path
    if wanted.flags & (os.O_PATH | os.O_DIRECTORY) or not path:
        return False  # neither opens a device
    if path == DEV_KVM and not wanted.in_root:
        return True
    base = b"/proc/%d" % tid
    if path.startswith((b"/proc/self/", b"/proc/thread-self/")):
        path = base + b"/" + path.split(b"/", 3)[3]  # ours would be the supervisor's
    relative = wanted.in_root or not path.startswith(b"/")
    start = base + (b"/cwd" if wanted.directory == _AT_FDCWD else b"/fd/%d" % wanted.directory)
    if path.endswith(b"kvm"):
        # By name, so that it works on a machine that has no /dev/kvm.
        absolute = _inside_root(base, start) + b"/" + path.lstrip(b"/") if relative else path
        if posixpath.normpath(b"/" + absolute.lstrip(b"/")) == DEV_KVM:
            return True
    return _leads_to_device(base, start + b"/" + path.lstrip(b"/") if relative else path, relative)


def _inside_root(base: bytes, link: bytes) -> bytes:
    """Return where a /proc link of the caller points, as the caller itself names it."""
    try:
        root, target = os.readlink(base + b"/root"), os.readlink(link)
    except OSError:
        return b""
    return target if root == b"/" else target.removeprefix(root)


def _leads_to_device(base: bytes, path: bytes, relative: bool) -> bool:
    """Follow symlinks to a character device 10:232, or to a symlink that dangles at /dev/kvm."""
    try:
        if not _shares_our_root(base):
            return _leads_to_device_in_root(base, path, relative)
        # The usual case: one stat() here follows the links just as the caller's open would.
        status = os.stat(path)
    except OSError as error:
        return error.errno == errno.ENOENT and _dangles_at_kvm(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _KVM_DEVICE


def _shares_our_root(base: bytes) -> bool:
    theirs = os.stat(base + b"/root")
    return (theirs.st_dev, theirs.st_ino) == _OUR_ROOT


def _leads_to_device_in_root(base: bytes, path: bytes, relative: bool) -> bool:
    """Resolve inside the caller's root, so that its absolute symlinks stay there (chroot, containers)."""
    if relative:
        start, _, rest = path.removeprefix(base + b"/").partition(b"/")
        if start == b"fd":
            number, _, rest = rest.partition(b"/")
            start += b"/" + number
        path = _inside_root(base, base + b"/" + start) + b"/" + rest
    for _ in range(_SYMLINK_LIMIT):
        path = posixpath.normpath(b"/" + path.lstrip(b"/"))
        if path == DEV_KVM:
            return True
        there = base + b"/root" + path
        status = os.lstat(there)
        if not stat.S_ISLNK(status.st_mode):
            return stat.S_ISCHR(status.st_mode) and status.st_rdev == _KVM_DEVICE
        path = posixpath.join(posixpath.dirname(path), os.readlink(there))
    return False


def _dangles_at_kvm(path: bytes) -> bool:
    try:
        for _ in range(_SYMLINK_LIMIT):
            folder, name = posixpath.split(path)
            # The folder by identity: it may have been reached through /proc/self/root.
            if name == b"kvm" and _identity(folder) == _identity(b"/dev"):
                return True
            path = posixpath.join(folder, os.readlink(path))
    except OSError:
        pass
    return False


def _identity(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


_OUR_ROOT = _identity(b"/")
