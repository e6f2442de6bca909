"""`tdx-cpuid baseline` with the real QEMU, and with one whose CPU model has changed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.grid import run, wrapper
from tests.e2e.release import release

GRID = ("--cpu", "SapphireRapids-v[12]", "--machine", "pc-q35-10.1", "--machine", "q35")
CHANGED = "-global SapphireRapids-v2-x86_64-cpu.avx-vnni=off"


@pytest.fixture
def saved(qemu: Path, firmware: Path, tmp_path: Path) -> Path:
    """The folder of a repository with a baseline."""
    result = run("baseline", "save", "q35", "--qemu", qemu, "--firmware", firmware, *GRID, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "4 TDs, 1 in full" in result.stdout
    return tmp_path


def changed(folder: Path, qemu: Path, machine: str) -> Path:
    """A QEMU in which a model has lost a feature on one machine type."""
    return wrapper(folder, qemu, f'has "machine {machine}," && set -- "$@" {CHANGED}')


def test_nothing_changed(saved: Path, qemu: Path, firmware: Path) -> None:
    result = run("baseline", "check", "q35", "--qemu", qemu, "--firmware", firmware, "--strict", cwd=saved)
    assert result.returncode == 0, result.stderr
    assert "4 TDs compared, nothing changed" in result.stdout
    newer = re.search(r"this QEMU has pc-q35-10\.2(, pc-q35-\S+)*, which the baseline does not cover", result.stdout)
    assert bool(newer) == (release(qemu) > (10, 1))


def test_saving_again_writes_the_same(saved: Path, qemu: Path, firmware: Path) -> None:
    before = (saved / "baselines" / "q35.txt").read_bytes()
    again = (*GRID[4:], *GRID[:4])
    result = run("baseline", "save", "q35", "--qemu", qemu, "--firmware", firmware, *again, cwd=saved)
    assert result.returncode == 0, result.stderr
    assert (saved / "baselines" / "q35.txt").read_bytes() == before


def test_a_versioned_machine_type_must_not_change(saved: Path, qemu: Path, firmware: Path) -> None:
    other = changed(saved, qemu, "pc-q35-10.1")
    options = ("--firmware", firmware, "--junit", "out.xml", "--markdown", "out.md")
    result = run("baseline", "check", "q35", "--qemu", other, *options, cwd=saved)
    assert result.returncode == 1, result.stderr
    assert "pc-q35-10.1 (must never change): 1 of 2 TDs changed" in result.stdout
    assert "SapphireRapids-v2 (module 1.5.05" in result.stdout
    assert "0x7.1.eax[4]  avx-vnni  1  ->  0" in result.stdout
    assert "q35 (may change): unchanged" in result.stdout
    assert 'failures="1"' in (saved / "out.xml").read_text()
    assert "❌ pc-q35-10.1" in (saved / "out.md").read_text()


def test_one_without_a_version_may_change(saved: Path, qemu: Path, firmware: Path) -> None:
    other = changed(saved, qemu, "q35")
    lenient = run("baseline", "check", "q35", "--qemu", other, "--firmware", firmware, cwd=saved)
    assert lenient.returncode == 0, lenient.stderr
    assert "q35 (may change): 1 of 2 TDs changed" in lenient.stdout
    strict = run("baseline", "check", "q35", "--qemu", other, "--firmware", firmware, "--strict", cwd=saved)
    assert strict.returncode == 1
    file = saved / "baselines" / "q35.txt"
    before = set(file.read_text().splitlines())
    save = run("baseline", "save", "q35", "--qemu", other, "--firmware", firmware, *GRID, cwd=saved)
    assert "q35 (may change): 1 of 2 TDs changed" in save.stdout, "saving says what it takes over"
    new = set(file.read_text().splitlines()) - before
    assert [line.split()[0] for line in new] == ["0x7.1.eax"], "one line tells it all"
    assert "@q35  -avx-vnni" in new.pop()


def test_a_td_that_cannot_be_built_is_a_failure_not_a_change(saved: Path, qemu: Path, firmware: Path) -> None:
    broken = wrapper(saved, qemu, "has 'cpu SapphireRapids-v2' && exit 9")
    result = run("baseline", "check", "q35", "--qemu", broken, "--firmware", firmware, cwd=saved)
    assert result.returncode == 4
    assert "2 TDs compared, 2 failed, nothing changed" in result.stdout


def test_nothing_is_saved_unless_all_is_well(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    grid = ("--cpu", "host", "--cpu", "486")
    result = run("baseline", "save", "x", "--qemu", qemu, "--firmware", firmware, *grid, cwd=tmp_path)
    assert result.returncode == 4
    assert "1 of 2 TDs cannot be built" in result.stderr
    assert not (tmp_path / "baselines").exists()


def test_what_is_no_baseline_is_said(qemu: Path, tmp_path: Path) -> None:
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "torn.txt").write_text("<<<<<<< HEAD\n")
    for words, code, said in (
        (("check", "none"), 3, "baseline save none"),
        (("check", "torn"), 2, "torn.txt is not a baseline"),
        (("save", "../up"), 2, "no name for a baseline"),
    ):
        result = run("baseline", *words, "--qemu", qemu, cwd=tmp_path)
        assert result.returncode == code, result.stderr
        assert said in result.stderr
