"""A child that is forked neither comes back nor outlives its parent, whatever happens in it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from plugin.processes import prctl
from plugin.processes.child import FAILED, die_with_parent, fork, take_default_action
from tests.waiting import PATIENCE

PROGRAM = "import os, signal, sys, time\nfrom plugin.processes.child import die_with_parent, fork\n"


def test_it_costs_no_start_up_time() -> None:
    code = "import sys; before = set(sys.modules)\nimport plugin.processes.child\nprint(*set(sys.modules) - before)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.split()
    assert "plugin.processes.child" in loaded
    assert not {"typing", "re", "enum", "json", "ctypes", "signal"} & set(loaded)


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program that forks; it has a stack, buffers and exit handlers of its own to come back to."""
    command = [sys.executable, "-c", PROGRAM + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def ended(body: Callable[[int], int]) -> int:
    """Fork; the exit code of the child, as `subprocess` has it."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(body), 0)[1])


def raising(error: BaseException) -> Callable[[int], int]:
    def body(_: int) -> int:
        raise error

    return body


def test_the_body_s_result_is_the_exit_status() -> None:
    assert ended(lambda _: 7) == 7


def test_the_body_is_told_who_its_parent_is() -> None:
    us = os.getpid()
    assert ended(lambda parent: 0 if parent == us == os.getppid() else 1) == 0


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files"), FAILED, "OSError: [Errno 24] Too many open files\n"),
        (ValueError("caf\xe9 \udcff"), FAILED, "ValueError: caf\xe9 \\udcff\n"),
        (GeneratorExit(), FAILED, "GeneratorExit: \n"),
        (SystemExit(), 0, ""),
        (SystemExit(3), 3, ""),
        (SystemExit("a reason"), 1, "a reason\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_exception_ends_the_child(
    error: BaseException, status: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended(raising(error)) == status
    assert capfd.readouterr().err == said


@pytest.mark.parametrize("result", [None, "three", 1 << 70])
def test_a_result_that_is_no_status_does_not_come_back_either(result: object) -> None:
    assert ended(lambda _: result) in (FAILED, 0)  # type: ignore[arg-type, return-value]


def test_an_error_that_cannot_be_said_ends_the_child_all_the_same() -> None:
    def body(_: int) -> int:
        os.close(2)
        raise OSError(1, "nobody hears this")

    assert ended(body) == FAILED


def test_nothing_of_the_caller_is_run_or_written_twice() -> None:
    done = run(
        "import atexit\n"
        "atexit.register(lambda: sys.stdout.write('at exit\\n'))\n"
        "sys.stdout.write('buffered\\n')\n"
        "try:\n"
        "    for error in (ValueError, SystemExit, KeyboardInterrupt):\n"
        "        def body(_): raise error\n"
        "        os.waitpid(fork(body), 0)\n"
        "except BaseException: sys.stdout.write('came back\\n')\n"
        "finally: sys.stdout.write('finally\\n')\n"
    )
    assert (done.returncode, done.stdout) == (0, "buffered\nfinally\nat exit\n"), done.stderr


def test_an_interrupt_at_any_moment_ends_the_child_and_does_not_come_back() -> None:
    """Each child is interrupted by its parent as soon as it exists; wherever it then is, it ends in one way."""
    done = run(
        "us = os.getpid()\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "for number in range(200):\n"
        "    try:\n"
        "        pid = fork(lambda _: sum(range(number * 50)) * 0)\n"
        "    finally:\n"
        "        if os.getpid() != us: os.write(1, b'came back'); os._exit(0)\n"
        "    os.kill(pid, signal.SIGINT)\n"
        "    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "    assert status in (0, 130), status\n"
        "print('done')\n"
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_an_interrupt_that_comes_during_the_fork_waits_until_it_can_do_no_harm() -> None:
    done = run(
        "from functools import partial\n"
        "os.register_at_fork(after_in_child=partial(signal.raise_signal, signal.SIGINT))\n"
        "us = os.getpid()\n"
        "try:\n"
        "    pid = fork(lambda _: 0)\n"
        "finally:\n"
        "    if os.getpid() != us: os.write(1, b'came back'); os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert (done.stdout, done.stderr) == ("130\n", "")


def test_the_signal_mask_is_the_caller_s_in_both() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        ours = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert ended(lambda _: int(signal.pthread_sigmask(signal.SIG_BLOCK, []) != ours)) == 0
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == ours
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_no_further_process_is_an_error_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(BlockingIOError):
        fork(lambda _: 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_signals_that_are_taken_by_default_again() -> None:
    def body(_: int) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        take_default_action(signal.SIGTERM, signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    assert ended(body) == -signal.SIGTERM


@contextmanager
def adopting() -> Iterator[None]:
    """Be told how the children of one's children end."""
    prctl.prctl(prctl.PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl.prctl(prctl.PR_SET_CHILD_SUBREAPER, 0)


def orphan(before: str, after: str) -> int:
    """How a child ends whose parent is killed: it runs ``before``, says so, then ``after``.

    The parent dies when its child has said so. The child goes on when its parent is gone.
    """
    code = (
        "gone, told = os.pipe()\n"
        "said, say = os.pipe()\n"
        "def body(parent):\n"
        "    os.close(told)\n"
        f"    {before}\n"
        "    os.write(say, b'x')\n"
        "    os.read(gone, 1)\n"
        f"    {after}\n"
        "    return 5\n"
        "pid = fork(body)\n"
        "print(pid, flush=True)\n"
        "os.read(said, 1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with adopting():
        with subprocess.Popen([sys.executable, "-c", PROGRAM + code], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            parent.wait(PATIENCE)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_without_the_call_a_child_outlives_its_parent() -> None:
    assert orphan("pass", "pass") == 5


def test_a_parent_that_dies_after_the_call_takes_its_child_along() -> None:
    assert orphan("die_with_parent(parent)", "time.sleep(1000)") == -signal.SIGKILL


def test_a_parent_that_died_before_the_call_takes_its_child_along() -> None:
    assert orphan("pass", "die_with_parent(parent)") == -signal.SIGKILL


def test_a_kernel_that_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        """What a container's seccomp profile makes of it."""

        def prctl(self, *_: object) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

    monkeypatch.setattr(prctl, "_libc", Refusing())
    with pytest.raises(PermissionError):
        die_with_parent(os.getppid())
