"""What the program does before a command runs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from qmp_client.cli import entry, program
from qmp_client.cli.program import COMMANDS


@pytest.fixture
def collecting() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.usefixtures("collecting")
@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"sim"}))
def test_what_may_run_for_days_collects_its_garbage(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    collected = []

    def run(_: list[str]) -> int:
        collected.append(gc.isenabled())
        return 0

    gc.enable()
    monkeypatch.setattr(program, "run", run)
    monkeypatch.setattr(sys, "argv", ["tdx-cpuid", command])
    with pytest.raises(SystemExit):
        entry.main()
    long = command in {"agent", "baseline", "drain", "matrix", "submit", "watch"}
    assert collected == [long]


def test_each_command_that_may_run_long_is_one() -> None:
    assert set(entry.MAY_RUN_LONG) <= COMMANDS.keys()
