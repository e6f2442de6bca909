"""`scripts/build-qemu --check`: a made-up tree and series, for each way in which they can fit or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from plugin.qemu.builder.check import check, series_of, what_moved
from plugin.qemu.builder.patches import Series
from plugin.qemu.trouble import Missing

LINES = [f"line {n}\n" for n in range(1, 21)]
PATCH = """--- a/target/cpu.c
+++ b/target/cpu.c
@@ -8,6 +8,7 @@
 line 8
 line 9
 line 10
+added
 line 11
 line 12
 line 13
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "qemu"
    (root / "qapi").mkdir(parents=True)
    (root / "target/i386/kvm").mkdir(parents=True)
    (root / "target/i386/kvm/tdx.c").touch()
    (root / "VERSION").write_text("11.0.0\n")
    (root / "target/cpu.c").write_text("".join(LINES))
    return root


@pytest.fixture
def series(tmp_path: Path) -> Path:
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "0001-first.patch").write_text(PATCH)
    return folder


def run(series: Path, tree: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "plugin.qemu.builder", "--check", str(series), str(tree)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_series_that_fits(series: Path, tree: Path) -> None:
    result = run(series, tree)
    assert (result.returncode, result.stdout) == (0, "0001-first.patch: fits\nthe series fits QEMU 11.0.0\n")
    assert (tree / "target/cpu.c").read_text() == "".join(LINES), "the tree stays as it is"


def test_what_moved_is_said(series: Path, tree: Path) -> None:
    (tree / "target/cpu.c").write_text("new\nnew\n" + "".join(LINES))
    assert check(series_of(str(series)), tree) == (
        True, ["0001-first.patch: fits: target/cpu.c hunk 1 moved by 2 lines"],
    )  # fmt: skip


def test_what_moved_together_is_said_in_one_word() -> None:
    report = (
        "patching file a.c\nHunk #1 succeeded at 9 (offset 2 lines).\nHunk #2 succeeded at 19 (offset 2 lines).\n"
        "Hunk #3 succeeded at 30 (offset -1 lines).\nHunk #4 FAILED at 40.\n"
        "patching file b.c\nHunk #1 succeeded at 9 (offset -1 lines).\n"
    )
    assert what_moved(report) == [
        "a.c hunk 4 failed at line 40",
        "a.c hunks 1-2 moved by 2 lines",
        "a.c hunk 3 moved by -1 lines",
        "b.c hunk 1 moved by -1 lines",
    ]


def test_nothing_is_placed_by_a_guess(series: Path, tree: Path) -> None:
    (tree / "target/cpu.c").write_text("".join(LINES).replace("line 13\n", "another\n"))
    fits, said = check(series_of(str(series)), tree)
    assert (fits, said) == (False, ["0001-first.patch: does not fit: target/cpu.c hunk 1 failed at line 8"])


def test_a_fix_is_left_out_where_what_it_removes_is_gone(series: Path, tree: Path) -> None:
    fix = PATCH.replace("@@ -8,6 +8,7 @@", "@@ -8,7 +8,7 @@").replace("+added\n line 11\n", "-line 11\n+mended\n")
    (series / "0001-first.patch").write_text(f"{fix} line 14\n")
    (series / "series.toml").write_text('fixes = ["0001-first.patch"]\n')
    assert check(series_of(str(series)), tree) == (True, ["0001-first.patch: fits"])
    (tree / "target/cpu.c").write_text("".join(LINES).replace("line 11\n", "mended\n"))
    assert check(series_of(str(series)), tree) == (
        True, ["0001-first.patch: not needed: what it removes is not in this tree"],
    )  # fmt: skip
    assert check(Series([series / "0001-first.patch"], [], []), tree)[0] is False, "only a fix is left out"


def test_what_does_not_fit_is_said_and_later_patches_are_tried(series: Path, tree: Path) -> None:
    (series / "0002-second.patch").write_text(PATCH.replace("line", "other"))
    fits, said = check(series_of(str(series)), tree)
    assert not fits
    assert said[0] == "0001-first.patch: fits"
    assert said[1].startswith("0002-second.patch: does not fit: target/cpu.c hunk 1 failed at line 8")
    result = run(series, tree)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (1, "the series does not fit QEMU 11.0.0")


def test_a_file_that_is_gone(series: Path, tree: Path) -> None:
    (tree / "target/cpu.c").unlink()
    fits, said = check(series_of(str(series)), tree)
    assert (fits, said) == (False, ["0001-first.patch: does not fit: target/cpu.c is not in the tree"])


def test_what_is_no_series_or_tree(series: Path, tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"neither a series \(.*10\.2"):
        series_of(str(tmp_path))
    with pytest.raises(Missing, match="no QEMU source tree"):
        check(series_of("10.2"), tmp_path)
    (tmp_path / "VERSION").write_text("9.2.4\n")
    with pytest.raises(Missing, match=r"QEMU 9\.2\.4 knows no TDX: it takes QEMU 10\.1 or newer"):
        check(series_of("10.2"), tmp_path)
