"""The file of results survives being cut off anywhere."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmp_client.errors import MissingError, UsageError
from qmp_client.matrix import journal
from qmp_client.reconcile.verdict import Verdict
from tests.matrix.results import bad, cell, good, line

RESULTS = [
    good(cell("host")),
    good(cell("EPYC"), line("avx2", 5), line("rtm", 11, Verdict.UNASKED)),
    bad(cell("486"), "QEMU said \N{SNOWMAN} and\na second line"),
]


def write(path: Path) -> None:
    with journal.appending(path) as kept:
        for result in RESULTS:
            kept.add(result)


def test_what_is_added_is_read(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path)
    assert journal.read(path) == RESULTS
    assert len(path.read_bytes().splitlines()) == len(RESULTS)


@settings(deadline=None)
@given(st.floats(0, 1))
def test_a_file_cut_anywhere_keeps_whole_results_and_takes_more(share: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        write(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        before = journal.read(path)
        assert before == RESULTS[: len(before)]
        with journal.appending(path) as kept:
            kept.add(RESULTS[-1])
        assert journal.read(path) == [*before, RESULTS[-1]]


def test_there_may_be_no_file(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "none.jsonl") == []


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(MissingError, match="No space left"):
            journal.Journal(tmp_path / "results.jsonl", full).add(RESULTS[0])
    finally:
        os.close(full)


def test_what_cannot_be_read_again_is_refused() -> None:
    with pytest.raises(UsageError, match="is no file"):
        journal.read(Path("/dev/null"))


def test_another_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("first\nsecond\n")
    with pytest.raises(UsageError, match="line 1"):
        journal.read(path)
    assert path.read_text() == "first\nsecond\n"
