"""What nobody expected ends in a sentence, and the traceback goes to a file for whoever mends it.

Loaded when it has happened, so it relies on nothing: there may be no memory, no descriptors and no disk.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

STATUS = 5
"""The exit status of a command that a mistake of its own has ended."""
KEPT = 20
"""Files of crashes that are kept: the newest."""


def unexpected(program: str, arguments: list[str], error: BaseException) -> int:
    """Say on standard error what happened to ``program``, and where the traceback is; return STATUS.

    The file is in ``$XDG_STATE_HOME/tdx-cpuid`` (``~/.local/state/tdx-cpuid``), or in the temporary folder where that
    cannot be; the traceback itself is said where neither can.
    """
    what = f"{type(error).__name__}: {error}".strip().splitlines()
    said = f"{program}: a mistake in the program, which nobody expected: {what[0][:300]}"
    try:
        text = _text(arguments, error)
    except Exception as another:  # no memory, say
        _say(f"{said}\n  ({type(another).__name__} while its traceback was made)")
        return STATUS
    for folder in (_state, _temporary):
        try:
            file = _write(folder(), text)
        except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home
            continue
        _say(f"{said}\n  {file} has the traceback: please report it together with what you did")
        return STATUS
    _say(f"{text}{said}\n  the traceback is above: please report it together with what you did")
    return STATUS


def _text(arguments: list[str], error: BaseException) -> str:
    import platform  # noqa: PLC0415  all this is for a command that has failed
    import traceback  # noqa: PLC0415
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        number = version("tdx-cpuid")
    except PackageNotFoundError:
        number = "(not installed)"
    return (
        f"tdx-cpuid {number}, Python {platform.python_version()}, {platform.platform()}\n"
        f"arguments: {arguments!a}\n" + "".join(traceback.format_exception(error, limit=-50))
    )


def _state() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    folder = (Path(base) if base else Path.home() / ".local" / "state") / "tdx-cpuid"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _temporary() -> Path:
    import tempfile  # noqa: PLC0415

    return Path(tempfile.gettempdir())


def _write(folder: Path, text: str) -> Path:
    """Write a new file that only this user reads; of this project's older ones there, the newest stay."""
    import time  # noqa: PLC0415

    path = folder / f"tdx-cpuid-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except OSError:
        path.unlink()
        raise
    with suppress(OSError):  # another command may be at it
        _forget(folder)
    return path


def _forget(folder: Path) -> None:
    """Remove this user's oldest files of crashes."""
    ours = [path for path in folder.glob("tdx-cpuid-crash-*.txt") if path.lstat().st_uid == os.getuid()]
    for path in sorted(ours)[:-KEPT]:
        path.unlink()


def _say(text: str) -> None:
    stream = sys.stderr
    try:
        line = f"{text}\n".encode(stream.encoding, "backslashreplace")
        descriptor = stream.fileno()
        while line:
            line = line[os.write(descriptor, line) :]
    except (OSError, ValueError, AttributeError):
        return
