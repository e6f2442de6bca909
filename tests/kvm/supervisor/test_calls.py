"""Opens, ioctls and descriptors, as programs make them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kvm.supervisor.conftest import Start
from tests.waiting import PATIENCE

Python = Callable[[str], tuple[int, str, dict[str, Any]]]

OPENAT2 = """
libc = ctypes.CDLL(None, use_errno=True)
how = (ctypes.c_uint64 * 3)(os.O_RDWR | os.O_CLOEXEC, 0, 0)
fd = libc.syscall(437, -100, b"/dev/kvm", how, 24)
"""
OPEN = 'fd = ctypes.CDLL(None).syscall(2, b"/dev/kvm", os.O_RDWR)'


@pytest.mark.parametrize(
    "opened",
    [
        'fd = os.open("/dev/kvm", os.O_RDWR)',
        'fd = os.open("//dev/../dev/./kvm", os.O_RDWR)',
        'os.chdir("/usr"); fd = os.open("../dev/kvm", os.O_RDWR)',
        'fd = os.open("kvm", os.O_RDWR, dir_fd=os.open("/dev", os.O_PATH))',
        "import tempfile\nwith tempfile.TemporaryDirectory() as folder:\n"
        '    os.symlink("/dev/kvm", n := folder + "/k"); fd = os.open(n, os.O_RDWR)',
        'fd = os.open("/proc/self/root/dev/kvm", os.O_RDWR)',
        OPEN,
        OPENAT2,
    ],
    ids=["plain", "dots", "cwd", "dirfd", "symlink", "proc-root", "open", "openat2"],
)
def test_every_way_to_open_dev_kvm_leads_to_the_simulation(python: Python, opened: str) -> None:
    status, out, _ = python(opened + "\nprint(fcntl.ioctl(fd, 0xAE00), os.readlink(f'/proc/self/fd/{fd}'))")
    assert (status, out) == (0, "12 /memfd:kvm (deleted)\n")


def test_other_files_are_opened_by_the_kernel(python: Python) -> None:
    status, out, end = python(
        "print(open('/proc/self/comm').read().strip() != '', os.path.exists('/nonexistent'))\n"
        "try: open('/nonexistent/kvm')\n"
        "except FileNotFoundError as e: print(e.errno)\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.syscall(2, ctypes.c_void_p(8), 0), errno.errorcode[ctypes.get_errno()])"
    )
    assert (status, out) == (0, "True False\n2\n-1 EFAULT\n")
    assert end["calls"]["ioctls"] == 0


@pytest.mark.parametrize(("flags", "cloexec"), [("os.O_RDWR", False), ("os.O_RDWR | os.O_CLOEXEC", True)])
def test_close_on_exec_is_what_the_caller_asked_for(python: Python, flags: str, cloexec: bool) -> None:
    # Through syscall(2): os.open adds O_CLOEXEC by itself.
    _, out, _ = python(
        f"fd = ctypes.CDLL(None).syscall(257, -100, b'/dev/kvm', {flags})\n"
        "print(bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC))\n"
        "vcpu = fcntl.ioctl(fd, 0xAE01); print(bool(fcntl.fcntl(vcpu, fcntl.F_GETFD) & fcntl.FD_CLOEXEC))"
    )
    assert out == f"{cloexec}\nTrue\n"


def test_a_descriptor_is_known_by_any_number_in_any_process(python: Python) -> None:
    status, out, _ = python("""
import socket, array
kvm = os.open("/dev/kvm", os.O_RDWR)
other = os.dup2(kvm, 77); os.close(kvm)
null = os.open("/dev/null", os.O_RDWR)
assert null == kvm
try: fcntl.ioctl(null, 0xAE00)
except OSError as e: print(errno.errorcode[e.errno])
a, b = socket.socketpair()
if os.fork() == 0:
    a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fcntl.ioctl(77, 0xAE01)]))])
    os._exit(fcntl.ioctl(77, 0xAE00))
print(os.waitstatus_to_exitcode(os.wait()[1]))
_, anc, _, _ = b.recvmsg(1, 100)
vcpu = array.array("i", anc[0][2])[0]
try: fcntl.ioctl(vcpu, 0xAE81)
except OSError as e: print(errno.errorcode[e.errno])
print(mmap.mmap(vcpu, 8192)[16:20])
""")
    assert (status, out) == (0, "ENOTTY\n12\nEINVAL\nb'VCPU'\n")


def test_arguments_are_read_and_written_in_the_callers_memory(python: Python) -> None:
    status, out, _ = python("""
kvm = os.open("/dev/kvm", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
data = ctypes.create_string_buffer(b"abcdefgh", 8)
print(libc.ioctl(kvm, 0xAE02, data), data.raw)
readonly = mmap.mmap(-1, 4096, prot=mmap.PROT_READ)
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, 4096, 1, 0x22, -1, 0)
for wild in (0, 8, page, 0xFFFFFFFFFFFFFFF8, 0x7FFFFFFFF000):
    print(libc.ioctl(kvm, 0xAE02, ctypes.c_void_p(wild)), errno.errorcode[ctypes.get_errno()])
""")
    assert (status, out) == (0, "0 b'hgfedcba'\n" + "-1 EFAULT\n" * 5)


def test_a_call_repeated_after_a_signal_finds_its_input_as_it_was(python: Python) -> None:
    _, out, end = python(
        "signal.signal(signal.SIGUSR1, lambda *_: None); signal.siginterrupt(signal.SIGUSR1, False)\n"
        "fd = os.open('/dev/kvm', os.O_RDWR)\n"
        "words = (ctypes.c_uint64 * 2)(os.getpid(), 40)\n"
        "print(ctypes.CDLL(None).ioctl(fd, 0xAE05, words), words[1])"
    )
    assert (out, end["commits"], end["calls"]["ioctls"]) == ("40 41\n", ["interrupted"], 2)


def test_a_refusal_that_a_signal_overtook_is_none(python: Python) -> None:
    _, out, end = python(
        "signal.signal(signal.SIGUSR1, lambda *_: None); signal.siginterrupt(signal.SIGUSR1, False)\n"
        "fd = os.open('/dev/kvm', os.O_RDWR)\n"
        "words = (ctypes.c_uint64 * 2)(os.getpid(), 40)\n"
        "print(ctypes.CDLL(None).ioctl(fd, 0xAE06, words), words[1])"
    )
    assert (out, end["commits"], end["calls"]["ioctls"]) == ("-1 41\n", ["interrupted", "refused"], 2)


def test_a_bug_in_a_device_fails_the_call_and_nothing_else(python: Python) -> None:
    status, out, end = python("""
kvm = os.open("/dev/kvm", os.O_RDWR)
for _ in range(2):
    try: fcntl.ioctl(kvm, 0xAE04)
    except OSError as e: print(errno.errorcode[e.errno])
print(fcntl.ioctl(kvm, 0xAE00))
""")
    assert (status, out) == (0, "EIO\nEIO\n12\n")
    assert len(end["warnings"]) == 1
    assert "a bug in the device" in end["warnings"][0]


def test_no_room_for_a_descriptor_is_emfile_and_changes_nothing(python: Python) -> None:
    status, out, end = python("""
import resource
kvm = os.open("/dev/kvm", os.O_RDWR)
resource.setrlimit(resource.RLIMIT_NOFILE, (kvm + 1, kvm + 1))
try: fcntl.ioctl(kvm, 0xAE01)
except OSError as e: print(errno.errorcode[e.errno])
""")
    assert (status, out) == (0, "EMFILE\n")
    assert end["commits"] == []


def test_descriptors_are_released_when_nobody_has_them(python: Python) -> None:
    code = "def one():\n k = os.open('/dev/kvm', os.O_RDWR); v = fcntl.ioctl(k, 0xAE01)\n os.close(k); os.close(v)\n"
    _, _, few = python(code + "one()")
    _, _, many = python(code + "for _ in range(300): one()")
    assert many["commits"] == ["vcpu"] * 300
    assert many["descriptors"] == few["descriptors"]


def test_waiting_kvm_run_is_ended_by_a_signal(python: Python) -> None:
    status, out, end = python("""
kvm = os.open("/dev/kvm", os.O_RDWR); vcpu = fcntl.ioctl(kvm, 0xAE01); run = mmap.mmap(vcpu, 8192)
libc = ctypes.CDLL(None, use_errno=True)
def kicked(*_): run[1] = 1
signal.signal(signal.SIGUSR1, kicked)
main = threading.main_thread().ident
def kick():
    while "seccomp" not in open(f"/proc/{os.getpid()}/wchan").read(): time.sleep(0.01)
    signal.pthread_kill(main, signal.SIGUSR1)
threading.Thread(target=kick).start()
for _ in range(2):  # the second finds immediate_exit
    print(libc.ioctl(vcpu, 0xAE80), errno.errorcode[ctypes.get_errno()], run[1])
""")
    assert (status, out) == (0, "-1 EINTR 1\n-1 EINTR 1\n")
    assert end["calls"]["ioctls"] in (2, 3)  # the signal may come before the supervisor has taken the first


def test_two_supervisors_at_once(start: Start) -> None:
    code = "import os, fcntl; k = os.open('/dev/kvm', 2); print(fcntl.ioctl(k, 0xAE00), flush=True); input()"
    both = [start(sys.executable, "-c", code, native=True) for _ in range(2)]
    assert [one.line() for one in both] == ["12", "12"]
    for one in both:
        one.process.communicate("\n", timeout=PATIENCE)
        assert one.process.returncode == 0


UNSHARE = [] if os.geteuid() == 0 else ["unshare", "-r"]


@pytest.mark.skipif(
    subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs root or a user namespace to chroot, and this system gives users none (Ubuntu 24.04, containers)",
)
def test_a_chroot_is_resolved_in_its_own_root(start: Start, tmp_path: Path) -> None:
    """Absolute symlinks inside a chroot mean files of the chroot."""
    (tmp_path / "root/dev").mkdir(parents=True)
    (tmp_path / "root/link").symlink_to("/dev/kvm")
    (tmp_path / "root/null").symlink_to("/dev/other")
    (tmp_path / "root/dev/other").write_text("plain")
    code = (
        "import os, fcntl, sys; os.chroot(sys.argv[1]); os.chdir('/')\n"
        "print(fcntl.ioctl(os.open('link', 2), 0xAE00), os.read(os.open('/null', 0), 9))"
    )
    status, out, _ = start(*UNSHARE, sys.executable, "-c", code, tmp_path / "root", native=True).end()
    assert (status, out) == (0, "12 b'plain'\n")
