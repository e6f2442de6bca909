"""What can go wrong while QEMU or the firmware is fetched or built, in words for the person at the keyboard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


class Trouble(Exception):
    """The message says what failed and what to do next. ``exit_code`` is the process's."""

    exit_code = 4


class Missing(Trouble):
    """Something has to be installed or given first."""

    exit_code = 3


def say(text: str) -> None:
    """Tell the user something; stdout is for what other programs read."""
    print(text, file=sys.stderr, flush=True)


def run(command: list[str], *, log: Path, cwd: Path | None = None, what: str) -> None:
    """Run a command with its output appended to ``log``. Raises Trouble with the last lines when it fails."""
    with log.open("ab") as output:
        output.write(f"+ {' '.join(command)}\n".encode())
        output.flush()
        start = output.tell()
        done = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise Trouble(f"{what} failed:\n{last_lines(log, start)}\n(all of it: {log})")


def last_lines(log: Path, start: int = 0, count: int = 25) -> str:
    """Return the end of a log, indented."""
    with log.open("rb") as source:
        source.seek(start)
        lines = source.read().decode(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-count:])


def cache_folder() -> Path:
    """Where everything that can be fetched or built again is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tdx-cpuid"


def end_with_trouble(main: Callable[[list[str]], None]) -> int:
    """Run a command's main function; turn Trouble, a disk that cannot be written and Ctrl-C into words and a code."""
    # As Ctrl-C: what was started is ended, what is unfinished removed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        main(sys.argv[1:])
    except Trouble as trouble:
        say(str(trouble))
        return trouble.exit_code
    except OSError as error:
        say(f"{error}\n(the cache is {cache_folder()}; XDG_CACHE_HOME names another place for it)")
        return Trouble.exit_code
    except KeyboardInterrupt:
        say("interrupted; nothing was installed")
        return 130
    return 0
