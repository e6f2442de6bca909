"""Programs under a real supervisor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from plugin.kvm.supervisor.opens import KVM_DEVICE
from tests.waiting import PATIENCE

REPOSITORY = Path(__file__).parents[3]


class Supervised:
    """A running supervisor (`process`) and its command (`pid`)."""

    def __init__(
        self,
        argv: Sequence[str],
        native: bool,
        cache: Path,
        *,
        device: int = KVM_DEVICE,
        under: Sequence[str] = (),
        stdin: int | IO[bytes] = subprocess.PIPE,
    ) -> None:
        read, write = os.pipe()
        options = [str(write), "native" if native else "simulated", str(device)]
        self.process = subprocess.Popen(
            [*under, sys.executable, "-m", "tests.kvm.supervisor.fake_kvm", *options, *argv],
            pass_fds=(write,),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        )
        os.close(write)
        self._lines = os.fdopen(read)
        self.pid: int = json.loads(self._lines.readline() or '{"pid": 0}')["pid"]

    def line(self) -> str:
        """Wait for a line that the command prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, str, dict[str, Any]]:
        """Wait for the end: exit status, rest of the output, and what the supervisor knew."""
        out, err = self.process.communicate(timeout=PATIENCE)
        line = self._lines.readline()
        return self.process.returncode, out + err, json.loads(line) if line else {}


Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Supervised] = []

    def begin(*argv: str | Path, native: bool = False, **how: Any) -> Supervised:
        supervised = Supervised([str(part) for part in argv], native, tmp_path / "cache", **how)
        running.append(supervised)
        return supervised

    yield begin
    for supervised in running:
        supervised.process.kill()
        supervised.process.communicate(timeout=PATIENCE)


@pytest.fixture
def python(start: Start) -> Callable[[str], tuple[int, str, dict[str, Any]]]:
    def run(code: str) -> tuple[int, str, dict[str, Any]]:
        prelude = "import os, fcntl, errno, ctypes, signal, threading, mmap, time\n"
        return start(sys.executable, "-c", prelude + code, native=True).end()

    return run


@pytest.fixture
def compile_c(tmp_path: Path) -> Callable[..., Path]:
    def build(source: str, *options: str) -> Path:
        program, code = tmp_path / "program", tmp_path / "program.c"
        code.write_text(source)
        subprocess.run(["gcc", "-O1", "-pthread", *options, "-o", program, code], check=True)
        return program

    return build
