"""What a run says while it goes on."""

from __future__ import annotations

import io
import os
import pty
from contextlib import suppress

from qmp_client.matrix.progress import LiveLine, PlainLines, Progress, Tally, clock, progress_on
from tests.matrix.results import bad, cell, good, line

RESULTS = [good(cell("host")), good(cell("EPYC"), line("avx2", 5)), bad(cell("486"), "no such model")]


def tell(progress: Progress) -> None:
    with progress:
        progress.begin(4, [good(cell("max"))])
        for result in RESULTS:
            progress.step(None)
            progress.step(result)


def test_plain_lines_say_what_failed_and_how_far_it_is() -> None:
    out = io.StringIO()
    tell(PlainLines(out))
    assert "4 cells, 1 of them known already" in out.getvalue()
    assert "failed: 486 on q35" in out.getvalue()
    assert "no such model" in out.getvalue()
    assert out.getvalue().splitlines()[-1] == "4 done (1 not as expected), 1 failed, 0 left"


def test_a_thousand_cells_are_not_a_thousand_lines() -> None:
    out = io.StringIO()
    progress = PlainLines(out)
    progress.begin(1000, [])
    for _ in range(1000):
        progress.step(RESULTS[0])
    assert len(out.getvalue().splitlines()) == 11


def test_a_terminal_gets_a_live_line() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as stream:
        progress = progress_on(stream)
        assert isinstance(progress, LiveLine)
        tell(progress)
    shown = ""
    with suppress(OSError):  # which is how a terminal ends
        while part := os.read(leader, 1 << 16):
            shown += part.decode()
    os.close(leader)
    for said in ("2 done, 0 failed, 2 left", "failed: 486 on q35"):
        assert said in " ".join(shown.split())


def test_time_to_go_is_reckoned_from_what_was_run_now() -> None:
    tally = Tally(10, [RESULTS[0]] * 5)
    assert tally.seconds_left is None
    tally.started -= 8000
    tally.add(RESULTS[0])
    left = tally.seconds_left
    assert left is not None
    assert 30_000 < left < 60_000, "one took 8000 s, four are left"
    assert clock(125) == "2:05"
