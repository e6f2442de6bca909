"""Runs ``matrix`` and ``baseline`` with the session's QEMU and firmware, and QEMUs that misbehave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.waiting import PATIENCE

ENTRY = [sys.executable, "-m", "qmp_client.cli.entry"]


def run(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parent.parent.parent)
    environment = os.environ | {"PYTHONPATH": root}
    return subprocess.run(
        [*ENTRY, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def wrapper(folder: Path, qemu: Path, script: str) -> Path:
    """A QEMU that runs a piece of shell first; ``has WORD`` says whether its command line has a word."""
    path = folder / "qemu-wrapper"
    path.write_text(f'#!/bin/sh\nargv="$*"\nhas() {{ case "$argv" in *"$1"*) ;; *) return 1;; esac; }}\n{script}\n')
    with path.open("a") as file:
        file.write(f'exec {qemu} "$@"\n')
    path.chmod(0o755)
    return path


def running(marker: str) -> list[str]:
    """Command lines of living processes that have the marker."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if process.name.isdigit() and int(process.name) != os.getpid() and marker in words:
            found.append(words)
    return found
