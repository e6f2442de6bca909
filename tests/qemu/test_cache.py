"""What was built is found by what it was built from, and is complete or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from plugin.qemu.builder.cache import Slot, inputs_hash
from tests.waiting import PATIENCE


@pytest.fixture
def patches(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "0001-a.patch", tmp_path / "0002-b.patch"]
    for path in paths:
        path.write_text(f"content of {path.name}\n")
    return paths


def test_the_same_inputs_have_the_same_name(patches: list[Path]) -> None:
    assert inputs_hash("id", ("--a",), patches) == inputs_hash("id", ("--a",), patches)


def test_each_input_changes_the_name(patches: list[Path]) -> None:
    names = {
        inputs_hash("id", ("--a",), patches),
        inputs_hash("other", ("--a",), patches),
        inputs_hash("id", ("--b",), patches),
        inputs_hash("id", ("--a",), patches[:1]),
        inputs_hash("id", ("--a",), patches[::-1]),
    }
    patches[0].write_text("changed\n")
    names.add(inputs_hash("id", ("--a",), patches))
    patches[0].write_text("content of 0001-a.patch\n")
    names.add(inputs_hash("id", ("--a",), [patches[0].rename(patches[0].with_name("0003-a.patch")), patches[1]]))
    assert len(names) == 7


def test_content_cannot_move_from_one_file_to_the_next(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("xb\0")
    second.write_text("y")
    name = inputs_hash("", (), [first, second])
    first.write_text("x")
    second.write_text("b\0y")
    assert inputs_hash("", (), [first, second]) != name


def finish(work: Path) -> Path:
    finished = work / "finished"
    (finished / "bin").mkdir(parents=True)
    (finished / "bin" / "qemu-system-x86_64").write_text("built")
    return finished


def test_a_finished_build_is_installed_and_its_work_removed(tmp_path: Path) -> None:
    slot = Slot(tmp_path / "qemu", "abc")
    with slot.building() as work:
        slot.install(finish(work))
    slot.make_current()
    assert slot.built
    assert (tmp_path / "qemu" / "current" / "bin" / "qemu-system-x86_64").read_text() == "built"
    assert not slot.work.exists()


def test_current_follows_the_one_asked_for_last(tmp_path: Path) -> None:
    for name in ("abc", "def", "abc"):
        slot = Slot(tmp_path, name)
        slot.make_current()
        slot.make_current()
        assert (tmp_path / "current").readlink() == Path(name)
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    slot = Slot(tmp_path, "abc")
    with pytest.raises(RuntimeError), slot.building() as work:
        finish(work)
        raise RuntimeError
    assert not slot.built
    assert not slot.work.exists()


BUILDER = """
import sys
from pathlib import Path
from plugin.qemu.builder.cache import Slot
with Slot(Path(sys.argv[1]), "abc").building() as work:
    (work / "half").touch()
    print("building", flush=True)
    sys.stdin.readline()
"""


def other_builder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "building\n"
    return process


def test_a_killed_build_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    with other_builder(tmp_path) as process:
        process.kill()
    slot = Slot(tmp_path, "abc")
    assert (slot.work / "half").exists()
    with slot.building() as work:
        assert not list(work.iterdir())


def test_leftovers_of_another_build_go_and_a_running_one_stays(tmp_path: Path) -> None:
    left = tmp_path / "dead.building"
    left.mkdir()
    with other_builder(tmp_path) as process:
        with Slot(tmp_path, "def").building():
            assert not left.exists()
            assert (tmp_path / "abc.building" / "half").exists()
        process.kill()


def test_two_builds_of_the_same_wait_for_each_other(tmp_path: Path) -> None:
    with other_builder(tmp_path) as process:
        waiter = subprocess.Popen(
            [sys.executable, "-c", BUILDER, tmp_path], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with waiter:
            assert waiter.stderr
            assert "waiting for it" in waiter.stderr.readline()
            assert process.poll() is None
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
            assert waiter.stdin
            waiter.stdin.write("\n")
            waiter.stdin.close()
            assert waiter.wait(PATIENCE) == 0
