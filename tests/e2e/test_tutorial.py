"""docs/tutorial.md, line by line: every command is run, and every line of output that the page shows has to come."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = "..."


def commands(page: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of the console blocks, each with the output that the page shows for it."""
    for block in page.split("```console\n")[1:]:
        for part in ("\n" + block.partition("```")[0]).split("\n$ ")[1:]:
            command, *output = part.rstrip("\n").split("\n")
            yield command, output


def has(said: list[str], shown: str) -> bool:
    """Take lines from the front until one holds what is shown, and say whether one did."""
    while said:
        line = " ".join(said.pop(0).split())
        if all(" ".join(part.split()) in line for part in shown.split(LEFT_OUT)):
            return True
    return False


def test_the_tutorial(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/tdx-cpuid"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m qmp_client.cli.entry "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TDX_CPUID_QEMU": str(qemu),
        "TDX_CPUID_FIRMWARE": str(firmware),
    }
    page = (ROOT / "docs/tutorial.md").read_text()
    steps = list(commands(page))
    assert len(steps) == 10
    for command, shown in steps:
        result = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment,
            cwd=tmp_path,
        )
        said = result.stdout.splitlines()
        for line in shown:
            assert line == LEFT_OUT or has(said, line), f"{command}\nlacks {line!r}\n{result.stdout}\n{result.stderr}"
        assert shown or result.returncode == 0, f"{command}\n{result.stderr}"
