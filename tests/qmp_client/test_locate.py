"""Which QEMU is run, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmp_client.errors import MissingError, UsageError
from qmp_client.qemu.locate import BINARY, VARIABLE, find_qemu


def a_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing in its cache and one empty folder in PATH."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_without_any_it_is_said_how_to_get_one(bare: Path) -> None:
    with pytest.raises(MissingError, match="no patched QEMU") as raised:
        find_qemu(None)
    assert raised.value.hint.endswith("--qemu PATH names your own")


def test_a_stock_one_is_offered_and_not_taken(bare: Path) -> None:
    stock = a_program(bare / "bin" / BINARY)
    with pytest.raises(MissingError, match="no patched QEMU") as raised:
        find_qemu(None)
    assert f"--qemu {stock} takes the stock one" in raised.value.hint


def test_the_user_s_word_goes_before_the_environment_s(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = a_program(bare / "bin" / "mine"), a_program(bare / "other")
    monkeypatch.setenv(VARIABLE, str(other))
    assert find_qemu("mine") == mine
    assert find_qemu(None) == other


def test_what_cannot_be_run_is_a_mistake_of_the_user_s(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="none is not a program"):
        find_qemu("none")
    monkeypatch.setenv(VARIABLE, "none")
    with pytest.raises(UsageError) as raised:
        find_qemu(None)
    assert VARIABLE in raised.value.hint
