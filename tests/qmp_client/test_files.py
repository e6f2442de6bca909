"""Files that commands write: found unwritable before anything runs, written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qmp_client import files
from qmp_client.errors import UsageError
from qmp_client.files import check_writable, write

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]


def test_what_cannot_be_written_is_found_first(tmp_path: Path) -> None:
    check_writable([None, tmp_path / "a", tmp_path / "b", Path("/dev/null"), Path("/dev/null")])
    with pytest.raises(UsageError, match="there is no folder"):
        check_writable([tmp_path / "no" / "a"])
    with pytest.raises(UsageError, match="it is a folder"):
        check_writable([tmp_path])
    with pytest.raises(UsageError, match="named twice"):
        check_writable([tmp_path / "a", tmp_path / "." / "a"])


def test_a_folder_that_takes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UsageError, match="Permission denied"):
        check_writable([tmp_path / "a"])


def test_an_interrupt_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "baseline.txt"
    path.write_text("before")

    def interrupted(_: Path) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_mode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path], "no half a file stays behind"


def test_links_permissions_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("before")
    real.chmod(0o640)
    link.symlink_to(real)
    write(link, "after")
    assert link.is_symlink()
    assert (real.read_text(), real.stat().st_mode & 0o777) == ("after", 0o640)
    write(tmp_path / "new", b"\0")
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o666 & ~umask
    write(Path("/dev/null"), "nowhere")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(UsageError, match="No space left"):
        write(Path("/dev/full"), "x")


@pytest.mark.parametrize(
    "words",
    [
        ["matrix", "--html", "no/x.html"],
        ["matrix", "--output", "x", "--junit", "x"],
        ["baseline", "save", "x", "--folder", "file/x"],
        ["capture", "no/x.json"],
        ["submit", "--broker", "mqtt://localhost:1", "--pool", "p", "--html", "no/x.html"],
    ],
    ids=" ".join,
)
def test_every_command_looks_first(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    result = subprocess.run(
        [*PROGRAM, *words], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, "nothing ran before"


@pytest.mark.parametrize("seconds", ["0", "-3"])
@pytest.mark.parametrize("command", [["negotiate"], ["matrix"], ["baseline", "check", "x"]], ids=" ".join)
def test_no_time_at_all_is_a_mistake(command: list[str], seconds: str) -> None:
    result = subprocess.run([*PROGRAM, *command, "--timeout", seconds], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--timeout" in result.stderr
