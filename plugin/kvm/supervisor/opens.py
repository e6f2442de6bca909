"""Is this open(2) meant for /dev/kvm?

What cannot be told is refused: a path that cannot be read, a way that cannot be followed. The kernel reads the path
once more after us, and a program may have changed it, or a symlink on its way, in between: then it has the real
device, on which no KVM request gets past the filter (docs/no-way-to-the-real-device.md).
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from plugin.kvm.supervisor import bpf
from plugin.kvm.supervisor.listener import Call
from plugin.kvm.supervisor.memory import ProcessMemory
from plugin.kvm.supervisor.places import Place, caller, quick_look, walk
from plugin.typing import NamedTuple

KVM_DEVICE = os.makedev(10, 232)
"""KVM_MINOR among the kernel's miscellaneous devices."""

_DEV_KVM = b"/dev/kvm"
_FOLDER, _NAME = b"dev", b"kvm"
_AT_FDCWD = -100
_RESOLVE_IN_ROOT = 0x10
_OPEN_HOW = struct.Struct("<QQQ")
_NEW = os.O_CREAT | os.O_EXCL


class Open(NamedTuple):
    """An open of any of the kinds, with its path still unresolved."""

    directory: int  # _AT_FDCWD or a descriptor of the caller
    path: bytes
    flags: int
    in_root: bool  # openat2's RESOLVE_IN_ROOT: the directory is the root for this one call


def decode_open(call: Call, memory: ProcessMemory) -> Open:
    """Read the arguments of open, creat, openat or openat2. Raises BadAddress, Unreadable, OSError (ENAMETOOLONG)."""
    number = bpf.OPENS_OF_I386[call.number] if call.is_32_bit else call.number & ~bpf.X32_BIT
    first, second, third, fourth = call.arguments
    if number == bpf.SYS_OPEN:
        return Open(_AT_FDCWD, memory.read_path(first), second, False)
    if number == bpf.SYS_CREAT:
        return Open(_AT_FDCWD, memory.read_path(first), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, False)
    directory = (first & 0xFFFFFFFF ^ 0x80000000) - 0x80000000  # a C int
    path = memory.read_path(second)
    if number == bpf.SYS_OPENAT:
        return Open(directory, path, third, False)
    # A struct shorter than its first version is refused by the kernel itself.
    how = memory.read(third, _OPEN_HOW.size) if fourth >= _OPEN_HOW.size else bytes(_OPEN_HOW.size)
    flags, _, resolve = _OPEN_HOW.unpack(how)
    return Open(directory, path, flags, bool(resolve & _RESOLVE_IN_ROOT))


def means_kvm(tid: int, wanted: Open, device: int) -> bool:
    """Tell whether the open leads to the character device `device`, or to the name /dev/kvm, as thread `tid` sees it.

    Raises OSError when that cannot be told: PermissionError where the supervisor may not look. A name that does not
    exist is no reason.
    """
    path = wanted.path
    if wanted.flags & (os.O_PATH | os.O_DIRECTORY) or path.endswith((b"/", b"/.", b"/..")):
        return False  # none of these opens a device
    if path == _DEV_KVM and not wanted.in_root:
        return True
    from_root = wanted.in_root or path.startswith(b"/")
    if wanted.in_root or not from_root:
        where = b"cwd" if wanted.directory == _AT_FDCWD else b"fd/%d" % wanted.directory
    else:
        where = b"root"
    try:
        start = caller(tid, where)
    except FileNotFoundError:
        return False  # no such descriptor (EBADF), or the caller has died
    try:
        place = quick_look(start, path, from_root=from_root)
        if place is not None and not path.endswith(_NAME):
            return _is_device(place, device)
        root = start if from_root else caller(tid, b"root")
        try:
            return _leads_there(tid, wanted, root, start, device)
        finally:
            if root != start:
                os.close(root)
    finally:
        os.close(start)


def _leads_there(tid: int, wanted: Open, root: int, start: int, device: int) -> bool:
    follow = not wanted.flags & os.O_NOFOLLOW and wanted.flags & _NEW != _NEW
    try:
        place = walk(tid, root, start, wanted.path, follow=follow)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            return False  # the kernel comes to the same end
        raise
    # By name, so that it works on a machine that has no /dev/kvm.
    return _is_device(place, device) or (place.name == _NAME and place.folder == _folder(root))


def _is_device(place: Place, device: int) -> bool:
    return place.status is not None and stat.S_ISCHR(place.status.st_mode) and place.status.st_rdev == device


def _folder(root: int) -> tuple[int, int] | None:
    """Return the identity of the caller's /dev."""
    try:
        status = os.stat(_FOLDER, dir_fd=root)
    except OSError:
        return None
    return status.st_dev, status.st_ino
