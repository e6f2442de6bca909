"""docs/tutorial.md and README.md: every command is run, and every line of output that the page shows has to come."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

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


@pytest.mark.parametrize(("page", "number"), [("docs/tutorial.md", 10), ("README.md", 3)])
def test_a_page_shows_what_is_said(page: str, number: int, environment: dict[str, str], tmp_path: Path) -> None:
    steps = list(commands((ROOT / page).read_text()))
    assert len(steps) == number
    for command, shown in steps:
        result = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=environment,
            cwd=tmp_path,
        )
        said = result.stdout.splitlines()
        for line in shown:
            assert line == LEFT_OUT or has(said, line), f"{command}\nlacks {line!r}\n{result.stdout}\n{result.stderr}"
        assert shown or result.returncode == 0, f"{command}\n{result.stderr}"
