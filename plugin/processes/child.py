"""A forked child: it never comes back into the caller's code, and it dies with its parent."""

from __future__ import annotations

import os

from plugin.processes.signals import signal
from plugin.typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

FAILED = 127
"""The exit status of a child whose body raised an exception."""


def fork(body: Callable[[int], int]) -> int:
    """Fork; return the child's process id.

    The child calls `body` with its parent's process id, which `die_with_parent` takes, and what that returns is its
    exit status. However `body` ends, the child ends with it: at an exception, which is one line on its standard
    error, with FAILED; at SystemExit with its code and at KeyboardInterrupt with 130, both as Python has it. Nothing
    that the caller has buffered or registered to be run at the end is written or run in the child.

    No signal handler runs between the fork and the beginning of `body`. Raises OSError when there can be no child.
    """
    parent = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _run(body, parent, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _run(body: Callable[[int], int], parent: int, mask: set[int | signal.Signals]) -> NoReturn:
    status = FAILED
    try:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            status = int(body(parent)) & 0xFF
        except KeyboardInterrupt:
            status = 128 + signal.SIGINT
        except SystemExit as end:
            status = _status_of(end)
        except BaseException as error:
            _say(f"{type(error).__name__}: {error}")
    finally:  # an interrupt may come at any of these lines, too
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        finally:
            os._exit(status)


def _status_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    _say(str(end.code))
    return 1


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode(errors="backslashreplace"))


def die_with_parent(parent: int) -> None:
    """Get SIGKILL when the thread that started this process ends; at once, if the process `parent` is gone already.

    It holds until this process executes a program that gains privileges, and not for its own children. Raises
    OSError where the kernel refuses.
    """
    from plugin.processes.prctl import PR_SET_PDEATHSIG, prctl  # noqa: PLC0415 - ctypes, beside the caller's work

    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above, and nobody will be told
        os.kill(os.getpid(), signal.SIGKILL)


def take_default_action(*signals: int) -> None:
    """Have these signals do what they do to a program that says nothing about them."""
    for number in signals:
        signal.signal(number, signal.SIG_DFL)
