"""No way leads to the real device: docs/no-way-to-the-real-device.md, row by row.

The device is a decoy, /dev/full, which everybody may open and nobody else does here: the supervisor is told that this
is the one that the command shall never get.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from array import array
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from plugin.kvm.supervisor.bpf import (
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    KVMIO,
    RET_ALLOW,
    RET_ERRNO,
    RET_USER_NOTIF,
    SYS_IOCTL,
    SYS_IOCTL_X32,
    X32_BIT,
    kvm_filter,
)
from tests.kvm.supervisor.conftest import REPOSITORY, Start, Supervised
from tests.waiting import PATIENCE

DECOY = Path("/dev/full")
DEVICE = DECOY.stat().st_rdev
PAGE = REPOSITORY / "docs" / "no-way-to-the-real-device.md"
SIMULATED = (
    "open", "openat", "creat", "dots", "dirfd", "openat2", "openat2_in_root", "relative", "symlink",
    "symlink_on_the_way", "proc_root", "thread_root", "proc_self_fd", "dev_fd", "thread_fd", "proc_pid_fd", "proc_dots",
    "task_fd", "fd_folder", "fd_cwd", "symlink_to_fd", "stdin", "proc_cwd", "open_tree", "child", "vfork", "thread",
    "exec", "traced",
)  # fmt: skip
"""Ways that everybody has and that lead to the simulation."""
REFUSED = {
    "handle": "open: EPERM",
    "io_uring": "io_uring_setup: EPERM",
    "i386_open": "open: ENODEV",
    "i386_creat": "open: ENODEV",
    "i386_openat": "open: ENODEV",
}
"""Ways that are closed to everybody; a 32-bit call where this kernel has none is ENOSYS or ends the program."""
OF_SOME = (
    "x32_open", "x32_openat", "mknod", "rename", "link", "bind_mount", "bind_mount_relative", "bind_mount_above_root",
    "chroot", "pid_namespace",
)  # fmt: skip
"""Ways that need root, a user namespace or an unusual kernel, so that they may lead nowhere without us either."""
NOT_DUMPABLE = "not_dumpable"
WITHOUT = [sys.executable, "-m", "tests.kvm.supervisor.without"]
NO_READ, NO_WRITE = "310:1", "311:1"  # process_vm_readv, process_vm_writev: EPERM

LOOP = 'ways=$1 node=$2 folder=$3; shift 3; for way; do echo "$way $($ways $way $node $folder/$way)"; done'


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("ways") / "ways"
    source = Path(__file__).parent / "ways.c"
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-pthread", "-o", program, source], check=True)
    return program


def loop(ways: Path, folder: Path) -> list[str | Path]:
    """A command that goes every way and prints what each leads to."""
    for way in (*SIMULATED, *REFUSED, *OF_SOME, NOT_DUMPABLE):
        (folder / way).mkdir()
    return ["sh", "-c", LOOP, "sh", ways, DECOY, folder, *SIMULATED, *REFUSED, *OF_SOME, NOT_DUMPABLE]


def read(out: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in out.splitlines())


@pytest.fixture(scope="module")
def plainly(ways: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each way leads to without us."""
    command = loop(ways, tmp_path_factory.mktemp("plainly"))
    return read(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE).stdout)


@pytest.fixture(scope="module")
def simulated(ways: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], list[str]]:
    """What each way leads to under us, and the warnings."""
    command = [str(part) for part in loop(ways, tmp_path_factory.mktemp("simulated"))]
    supervised = Supervised(command, native=True, cache=tmp_path_factory.mktemp("cache"), device=DEVICE)
    _, out, end = supervised.end()
    return read(out), end["warnings"]


@pytest.fixture
def going(start: Start, ways: Path, tmp_path: Path) -> Callable[..., tuple[str, list[str]]]:
    """What a way leads to under us while we lack something, and the warnings."""

    def go(way: str, *under: str) -> tuple[str, list[str]]:
        supervised = start(ways, way, DECOY, tmp_path, native=True, device=DEVICE, under=[*WITHOUT, *under])
        _, out, end = supervised.end()
        return out.strip(), end["warnings"]

    return go


@pytest.mark.parametrize("way", SIMULATED)
def test_leads_to_the_simulation(
    way: str, plainly: dict[str, str], simulated: tuple[dict[str, str], list[str]]
) -> None:
    assert plainly[way] == "decoy", "else this proves nothing"
    assert simulated[0][way] == "simulated"


@pytest.mark.parametrize("way", REFUSED)
def test_is_closed(way: str, plainly: dict[str, str], simulated: tuple[dict[str, str], list[str]]) -> None:
    result = simulated[0][way]
    assert result == REFUSED[way] or (plainly[way] != "decoy" and result == plainly[way])


@pytest.mark.parametrize("way", OF_SOME)
def test_leads_to_the_simulation_where_it_can_be_gone(
    way: str, plainly: dict[str, str], simulated: tuple[dict[str, str], list[str]]
) -> None:
    assert simulated[0][way] in ("simulated", plainly[way].replace("decoy", "simulated"))


def test_only_what_is_refused_is_warned_of(simulated: tuple[dict[str, str], list[str]]) -> None:
    said = [warning.partition("] ")[2] for warning in simulated[1]]
    refused = "an open or ioctl fails with ENODEV: the simulated /dev/kvm is for 64-bit programs"
    assert [text for text in said if "not dumpable" not in text] in ([refused], [])


def test_what_cannot_be_read_is_refused(plainly: dict[str, str], going: Callable[..., tuple[str, list[str]]]) -> None:
    assert plainly[NOT_DUMPABLE] == "decoy"
    result, (warning,) = going(NOT_DUMPABLE, "ptrace")
    assert result == "open: EACCES"
    assert "its path cannot be read" in warning
    assert "not dumpable" in warning


def test_a_filter_around_us_that_denies_reading_is_gone_around(
    going: Callable[..., tuple[str, list[str]]],
) -> None:
    assert going("open", NO_READ, NO_WRITE) == ("simulated", [])


@pytest.mark.parametrize("wrong", [errno.EFAULT, errno.ESRCH])
def test_a_filter_around_us_that_lies_is_no_way(wrong: int, going: Callable[..., tuple[str, list[str]]]) -> None:
    """Then no program starts: its libraries cannot be opened."""
    assert going("open", f"310:{wrong}")[0] not in ("decoy", "simulated")


def test_without_openat2_we_look_all_the_same(going: Callable[..., tuple[str, list[str]]]) -> None:
    assert going("symlink_to_fd", f"437:{errno.ENOSYS}") == ("simulated", [])


def test_arguments_are_read_and_written_through_the_memory_file_as_well(start: Start) -> None:
    """Where the process may write, and nowhere else."""
    code = """
import ctypes, errno, os
kvm = os.open("/dev/kvm", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
data = ctypes.create_string_buffer(b"abcdefgh", 8)
print(libc.ioctl(kvm, 0xAE02, data), data.raw)
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, 4096, 1, 0x22, -1, 0)
for wild in (0, 8, page, 0xFFFFFFFFFFFFFFF8, 0x7FFFFFFFF000):
    print(libc.ioctl(kvm, 0xAE02, ctypes.c_void_p(wild)), errno.errorcode[ctypes.get_errno()])
"""
    under = [*WITHOUT, NO_READ, NO_WRITE]
    status, out, _ = start(sys.executable, "-c", code, native=True, under=under).end()
    assert (status, out) == (0, "0 b'hgfedcba'\n" + "-1 EFAULT\n" * 5)


REAL = Path("/dev/kvm")
FROM_OUTSIDE = [DECOY, *([REAL] if os.access(REAL, os.R_OK | os.W_OK) else [])]


@pytest.mark.parametrize("received", [False, True], ids=["inherited", "received"])
@pytest.mark.parametrize("node", FROM_OUTSIDE, ids=str)
def test_a_descriptor_from_outside_hears_no_kvm_request(start: Start, node: Path, received: bool) -> None:
    """So it is for one that a program got by changing its path while we looked at it."""
    code = """
import array, errno, fcntl, os, socket, sys
if sys.argv[1] == "True":
    held = socket.socket(fileno=0).recvmsg(1, 100)[1][0][2]
    os.dup2(array.array("i", held)[0], 0)
for number in (0, os.dup(0)):
    for request in (0xAE00, 0xAEFF, 0x4020AE46):
        try: print(fcntl.ioctl(number, request, 0))
        except OSError as error: print(errno.errorcode[error.errno])
"""
    with node.open("r+b", buffering=0) as real:
        ours, theirs = socket.socketpair()
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [real.fileno()]))])
        given = theirs.fileno() if received else real
        device = node.stat().st_rdev
        supervised = start(sys.executable, "-c", code, received, native=True, device=device, stdin=given)
        status, out, end = supervised.end()
        ours.close()
        theirs.close()
    assert (status, out) == (0, "ENOTTY\n" * 6)
    assert end["calls"]["ioctls"] == 6
    (warning,) = end["warnings"]
    assert f"a descriptor of the real KVM ({node}) from outside" in warning


def test_a_path_that_changes_while_it_is_read_opens_no_way(start: Start) -> None:
    """Another thread swaps two paths. Whatever is opened is ours, or hears no KVM request."""
    code = """
import ctypes, errno, os, stat, threading
libc = ctypes.CDLL(None, use_errno=True)
path = ctypes.create_string_buffer(b"/dev/full", 16)
running = True
def swap():
    while running:
        for name in (b"null", b"full"):
            ctypes.memmove(ctypes.addressof(path) + 5, name, 4)
thread = threading.Thread(target=swap); thread.start()
got = set()
for _ in range(300):
    fd = libc.syscall(2, path, os.O_RDWR)
    if os.fstat(fd).st_rdev == os.makedev(1, 7):
        got.add(f"{libc.ioctl(fd, 0xAE00, 0)} {errno.errorcode[ctypes.get_errno()]}")
    os.close(fd)
running = False; thread.join()
print(*got)
"""
    status, out, _ = start(sys.executable, "-c", code, native=True, device=DEVICE).end()
    assert status == 0
    assert out.strip() in ("", "-1 ENOTTY")


@cache
def instructions() -> list[tuple[int, int, int, int]]:
    import struct  # noqa: PLC0415

    return list(struct.iter_unpack("<HBBI", kvm_filter()))


def verdict(arch: int, number: int, request: int) -> int:
    """Run the filter as the kernel does; only what `bpf.Program` makes."""
    data = {0: number, 4: arch, 16: 0, 24: request & 0xFFFFFFFF, 28: request >> 32}
    accumulator = at = 0
    while True:
        code, if_true, if_false, constant = instructions()[at]
        at += 1
        if code == 0x20:
            accumulator = data[constant]
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x15:
            at += if_true if accumulator == constant else if_false
        else:
            assert code == 0x06
            return constant


@pytest.mark.parametrize("number", [SYS_IOCTL, SYS_IOCTL_X32, SYS_IOCTL | X32_BIT, SYS_IOCTL_X32 | X32_BIT])
def test_no_kvm_request_passes_the_filter(number: int) -> None:
    for request in range(0x100):
        for rest in (0, 0x40200000, 0xFFFF0000, 0xFFFFFFFF << 32):
            asked = rest | KVMIO << 8 | request
            assert verdict(AUDIT_ARCH_X86_64, number, asked) == RET_USER_NOTIF
            assert verdict(AUDIT_ARCH_I386, 54, asked) == RET_ERRNO | errno.ENOTTY
    assert verdict(AUDIT_ARCH_X86_64, number, 0x5401) == RET_ALLOW  # TCGETS
    assert verdict(AUDIT_ARCH_X86_64 ^ 1, number, 0x5401) == RET_ERRNO | errno.ENOSYS


def test_the_page_lists_every_way(ways: Path) -> None:
    names = set(subprocess.run([ways], capture_output=True, text=True, check=True).stdout.split())
    assert names == {*SIMULATED, *REFUSED, *OF_SOME, NOT_DUMPABLE}
    page = PAGE.read_text()
    assert not {name for name in names if f"`{name}`" not in page}
