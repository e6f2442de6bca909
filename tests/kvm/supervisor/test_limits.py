"""Limits of the machine and of the command: the supervisor outlives them, and answers as the kernel would."""

from __future__ import annotations

import errno
import sys
from typing import Any

import pytest

from tests.kvm.supervisor.conftest import Start

PRELUDE = "import ctypes, errno, fcntl, mmap, os, resource, signal\nkvm = os.open('/dev/kvm', os.O_RDWR)\n"
MEMFD_CREATE = 319
USES = [
    "os.ftruncate(vcpu, 0)",
    "os.ftruncate(vcpu, 1 << 40)",
    "os.write(vcpu, bytes(1 << 20))",
    "os.pwrite(vcpu, b'x', 1 << 40)",
    "os.posix_fallocate(vcpu, 0, 1 << 26)",
    "libc.fallocate(vcpu, 3, ctypes.c_long(0), ctypes.c_long(8192))",  # punch a hole
    "libc.fallocate(vcpu, 8, ctypes.c_long(0), ctypes.c_long(4096))",  # collapse
    "fcntl.fcntl(vcpu, 1033, 0xF)",  # F_ADD_SEALS: seal and write
    "fcntl.fcntl(vcpu, 1033, 0x10)",  # future write
    "os.fchmod(vcpu, 0)",
    "fcntl.fcntl(vcpu, fcntl.F_SETLEASE, fcntl.F_WRLCK)",
    "fcntl.fcntl(vcpu, fcntl.F_SETOWN, os.getppid())",
    "fcntl.fcntl(vcpu, fcntl.F_SETSIG, signal.SIGKILL); fcntl.fcntl(vcpu, fcntl.F_SETFL, os.O_ASYNC)",
    "fcntl.flock(vcpu, fcntl.LOCK_EX)",
    "fcntl.lockf(vcpu, fcntl.LOCK_EX)",
    "os.dup2(os.open('/dev/null', os.O_RDWR), vcpu)",
    "os.open(f'/proc/{os.getppid()}/fd/' + max(os.listdir(f'/proc/{os.getppid()}/fd'), key=int), os.O_RDWR)",
    "os.truncate(f'/proc/self/fd/{vcpu}', 0)",
]


def run(start: Start, code: str, limit: str = "true") -> tuple[int, str, dict[str, Any]]:
    under = ["sh", "-c", f'{limit} && exec "$@"', "sh"]
    return start(sys.executable, "-c", PRELUDE + code, native=True, under=under).end()


def test_one_open_and_more_vcpus_than_descriptors_one_after_another(start: Start) -> None:
    status, out, end = run(start, "for _ in range(500): os.close(fcntl.ioctl(kvm, 0xAE01))", "ulimit -n 128")
    assert (status, out, end["warnings"], len(end["commits"])) == (0, "", [], 500)


def test_as_many_vcpus_at_once_as_the_command_has_descriptors_then_emfile(start: Start) -> None:
    code = """
held = []
for _ in range(2):
    try:
        while True: held.append(fcntl.ioctl(kvm, 0xAE01))
    except OSError as error: print(len(held) > 190, errno.errorcode[error.errno])
    for vcpu in held: fcntl.fcntl(vcpu, fcntl.F_GETFD); os.close(vcpu)
    held = []
print(fcntl.ioctl(kvm, 0xAE00), os.path.exists("/"))
"""
    status, out, end = run(start, code, "ulimit -n 256")
    assert (status, out) == (0, "True EMFILE\n" * 2 + "12 True\n")
    assert not [warning for warning in end["warnings"] if "internal error" in warning]


def test_opens_are_still_looked_at_when_there_is_no_descriptor_left(start: Start) -> None:
    """The command has none left either, so it gives some of its own away; ours are still held by its parent."""
    code = """
held = []
try:
    while True: held.append(fcntl.ioctl(kvm, 0xAE01))
except OSError as error: print(errno.errorcode[error.errno], flush=True)
if os.fork() == 0:
    for one in held[::2]: os.close(one)
    print(open(f"/proc/self/task/{os.getpid()}/comm").read() != "", flush=True)
    os._exit(0)
os.wait()
"""
    status, out, _ = run(start, code, "ulimit -n 64")
    assert (status, out) == (0, "EMFILE\nTrue\n")


def test_the_supervisor_raises_its_own_limit_and_not_the_commands(start: Start) -> None:
    code = """
print(resource.getrlimit(resource.RLIMIT_NOFILE))
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
held = [fcntl.ioctl(kvm, 0xAE01) for _ in range(200)]
print(len(held), resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE))
"""
    status, out, end = run(start, code, "ulimit -Sn 64 && ulimit -Hn 512")
    assert (status, out, end["warnings"]) == (0, "(64, 512)\n200 (512, 512)\n", [])


def test_a_file_larger_than_allowed_is_refused_in_words(start: Start) -> None:
    code = """
print(resource.getrlimit(resource.RLIMIT_FSIZE))
try: fcntl.ioctl(kvm, 0xAE01)
except OSError as error: print(errno.errorcode[error.errno])
print(fcntl.ioctl(kvm, 0xAE00))
"""
    status, out, end = run(start, code, "ulimit -f 1 && ulimit -Hf 1")
    blocks = out.splitlines()[0]
    assert (status, out) == (0, f"{blocks}\nEFBIG\n12\n")
    assert end["warnings"] == [
        "no descriptor for a vcpu: File too large; the supervisor cannot make so large a file (ulimit -Hf)"
    ]


def test_a_soft_limit_of_the_file_size_is_no_matter(start: Start) -> None:
    status, out, end = run(start, "print(fcntl.ioctl(kvm, 0xAE01) > 0)", "ulimit -Sf 1")
    assert (status, out, end["warnings"]) == (0, "True\n", [])


def test_a_filter_around_us_that_denies_memory_files_is_said(start: Start) -> None:
    code = "try: os.open('/dev/kvm', os.O_RDWR)\nexcept OSError as error: print(errno.errorcode[error.errno])"
    under = [sys.executable, "-m", "tests.kvm.supervisor.without", f"{MEMFD_CREATE}:{errno.EPERM}"]
    status, out, end = start(sys.executable, "-c", f"import errno, os\n{code}", native=True, under=under).end()
    assert (status, out) == (0, "EPERM\n")
    (warning,) = end["warnings"]
    assert warning.startswith("no descriptor for a kvm: Operation not permitted; memfd_create(2) is denied here")


@pytest.mark.parametrize("use", USES)
def test_the_supervisor_survives_any_use_of_a_descriptor(start: Start, use: str) -> None:
    code = f"""
libc = ctypes.CDLL(None, use_errno=True)
for make, request in ((0xAE01, 0xAE80), (0xAE03, 0xAE00), (None, 0xAE00)):
    vcpu = kvm if make is None else fcntl.ioctl(kvm, make)
    run = mmap.mmap(vcpu, 4096) if make else None
    try:
        {use}
    except OSError: pass
    if make == 0xAE01:
        run[1] = 1  # immediate_exit
    print(libc.ioctl(vcpu, request, 0), flush=True)
other = os.open("/dev/kvm", os.O_RDWR)
print(fcntl.ioctl(other, 0xAE00), fcntl.ioctl(fcntl.ioctl(other, 0xAE01), 0x5421, bytes(4)) != None)
"""
    status, out, end = run(start, code)
    assert status == 0, out
    assert out.splitlines()[:2] == ["-1", "-1"]
    assert out.splitlines()[-1] == "12 True"
    assert end["warnings"] == []


def test_the_size_of_a_descriptor_is_what_it_is(start: Start) -> None:
    code = """
for fd in (kvm, fcntl.ioctl(kvm, 0xAE01), fcntl.ioctl(kvm, 0xAE03)):
    for size in (1, 1 << 30):
        try: os.ftruncate(fd, size)
        except OSError as error: print(errno.errorcode[error.errno], os.fstat(fd).st_size)
"""
    assert run(start, code)[1] == "".join(f"EPERM {size}\n" * 2 for size in (0, 8192, 4096))
