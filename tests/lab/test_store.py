"""One result for each accepted job, whatever happens to the process that stores them."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from qmp_client.errors import TdxCpuidError, UsageError
from qmp_client.lab import store_file
from qmp_client.lab.store import KEPT, Accepted, Arrival, Letter, Store
from qmp_client.lab.wire import Job, Outcome, Result, encode


def a_job(name: str, cpu: str = "host") -> Job:
    return Job(id=name, cpu=cpu)


def a_result(name: str, reason: str = "") -> Result:
    return Result(
        job=name, host="h", pool="p", outcome=Outcome.FAILED, seconds=1, at=time.time(), reason=reason, kvm="simulated"
    )


def a_letter(topic: str = "t") -> Letter:
    return Letter(topic, b"{}", "s", 60)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """What a reader beside the agent finds in the file."""
    with closing(sqlite3.connect(path)) as db:
        return list(db.execute(query))


def results(path: Path) -> dict[str, bytes]:
    return dict(rows(path, "SELECT job, payload FROM results"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Store:
    return Store(path)


def test_a_job_is_stored_once(store: Store) -> None:
    assert store.accept(a_job("one"), "reply", b"\0\xff") is Arrival.NEW
    assert store.accept(a_job("one"), None, None) is Arrival.KNOWN
    assert store.accept(a_job("one", "max"), None, None) is Arrival.OTHER
    (waiting,) = store.unfinished()
    assert waiting == Accepted(a_job("one"), "reply", b"\0\xff", 0)


def test_the_first_result_stays(store: Store, path: Path) -> None:
    store.accept(a_job("one"), None, None)
    assert store.finish(a_result("one", "first"), [a_letter()])
    assert not store.finish(a_result("one", "second"), [a_letter()])
    assert results(path) == {"one": store.result("one")}
    assert b"first" in (store.result("one") or b"")
    assert len(store.outbox(10)) == 1
    assert store.unfinished() == []


def test_no_result_without_a_job(store: Store) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        store.finish(a_result("never"), [a_letter()])
    assert store.outbox(10) == [], "nothing of the transaction stays"


def test_jobs_come_in_the_order_of_their_acceptance_whatever_they_are_called(store: Store) -> None:
    names = [f"job-{number}" for number in random.Random(5).sample(range(1000), 50)]
    for name in names:
        store.accept(a_job(name), None, None)
    assert [waiting.job.id for waiting in store.unfinished()] == names


def test_the_outbox_keeps_what_the_broker_has_not_taken(store: Store) -> None:
    store.post([a_letter(f"{number}") for number in range(5)])
    first, second, *rest = store.outbox(10)
    assert [letter.topic for letter in (first, second, *rest)] == ["0", "1", "2", "3", "4"]
    assert store.taken([second.number]) == 0, "the first one is still on its way"
    assert store.taken([first.number]) == second.number
    assert [letter.topic for letter in store.outbox(10)] == ["2", "3", "4"]
    assert store.send_again(after=first.number) == 1
    assert [letter.topic for letter in store.outbox(2)] == ["1", "2"]


def test_the_outbox_does_not_grow_for_ever(store: Store, path: Path) -> None:
    for _ in range(4):
        store.post([a_letter() for _ in range(KEPT)])
        store.taken([letter.number for letter in store.outbox(KEPT)])
    assert rows(path, "SELECT COUNT(*) FROM outbox") == [(KEPT,)]


def test_jobs_that_were_done_long_ago_are_forgotten_and_no_others(tmp_path: Path) -> None:
    store = Store(tmp_path / "small", jobs_kept=3)
    for number in range(10):
        store.accept(a_job(str(number)), None, None)
    for number in (0, 1, 2, 4, 9):
        store.finish(a_result(str(number)), [])
    assert set(results(tmp_path / "small")) == {"9"}
    assert [accepted.job.id for accepted in store.unfinished()] == ["3", "5", "6", "7", "8"]
    assert store.count_unfinished() == 5
    assert store.accept(a_job("9"), None, None) is Arrival.KNOWN
    assert store.accept(a_job("0"), None, None) is Arrival.NEW
    store.close()


def test_rejections_do_not_grow_for_ever(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmp_client.lab.store.REJECTIONS_KEPT", 5)
    for number in range(20):
        store.reject(str(number), "digest", "no", [])
    kept = [job for job, _ in rows(path, "SELECT job, reason FROM rejections ORDER BY number")]
    assert kept == ["15", "16", "17", "18", "19"]


def test_one_agent_at_a_time(store: Store, path: Path) -> None:
    with pytest.raises(UsageError, match="another agent"):
        Store(path)
    store.close()
    Store(path).close()


def test_a_file_that_is_no_store_is_an_error_in_words(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_text("something else, and long enough to be taken for a header by nobody" * 10)
    with pytest.raises(TdxCpuidError, match="not a database"):
        Store(path)


def test_a_file_of_another_version_is_left_as_it_was(path: Path) -> None:
    """Neither the lock nor the database stays open behind the error."""
    Store(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    for _ in range(2):  # the second one would find the lock taken
        with pytest.raises(UsageError, match="another version of tdx-cpuid"):
            Store(path)
    there = {one.name for one in path.parent.iterdir()}
    assert [one for one in Path("/proc/self/fd").iterdir() if one.resolve().parent == path.parent] == []
    assert there <= {path.name, f"{path.name}.lock"}, "the database was closed, so its WAL is gone"


def test_what_cannot_be_read_stops_nothing_and_its_bytes_are_kept(path: Path) -> None:
    """Whatever a later version, or another program, has written into a row."""
    store = Store(path)
    names = ["later", "number", "bytes", "name", "well"]
    for name in names:
        store.accept(a_job(name), "reply", None)
    store.post([a_letter("first"), a_letter("spoiled"), a_letter("last")])
    store.accept(a_job("done"), None, None)
    store.finish(a_result("done"), [], ("pool", "host"))
    store.set("drained", 1)
    store.close()
    later = encode(a_job("later")).replace(b"{", b'{"from-tomorrow":1,', 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE jobs SET payload = ? WHERE id = 'later'", (later,))
        db.execute("UPDATE jobs SET payload = 7, attempts = 'x', response_topic = 8 WHERE id = 'number'")
        db.execute("UPDATE jobs SET payload = ? WHERE id = 'bytes'", (b"\xff\xfe",))
        db.execute("UPDATE jobs SET id = CAST(x'ff2f' AS TEXT) WHERE id = 'name'")
        db.execute("UPDATE outbox SET expiry = 'never' WHERE topic = 'spoiled'")
        db.execute("UPDATE measured SET payload = '{}'")
        db.execute("UPDATE settings SET value = 'yes' WHERE name = 'drained'")
    store = Store(path)
    waiting = store.unfinished()
    assert [one.job.id for one in waiting] == ["later", "number", "bytes", "unreadable-4", "well"]
    assert "from-tomorrow" in waiting[0].unreadable
    assert [bool(one.unreadable) for one in waiting] == [True, True, True, True, False]
    assert [letter.topic for letter in store.outbox(10)] == ["first", "last"]
    assert store.measured("pool", "host") is None
    assert store.setting("drained") == 0
    for one in waiting:
        assert store.finish(a_result(one.job.id), [])
    assert store.unfinished() == []
    assert rows(path, "SELECT payload FROM jobs WHERE id = 'later'") == [(later,)]
    assert [what for (what,) in rows(path, "SELECT what FROM set_aside")] == ["message 2", "the measurement of host"]
    store.close()


def test_the_file_is_for_its_owner_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store(path)
        store.accept(a_job("one"), None, None)
        for one in path.parent.iterdir():
            one.chmod(0o644)  # as an earlier version left them, and as they are after its agent was killed
        store.close()
        store = Store(path)
        store.accept(a_job("two"), None, None)
        modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()}
    finally:
        os.umask(before)
    store.close()
    assert {name for name in modes if not name.endswith(".lock")} == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
    assert {mode for name, mode in modes.items() if not name.endswith(".lock")} == {0o600}


def test_a_state_file_that_is_no_file_is_left_alone() -> None:
    with pytest.raises(TdxCpuidError, match="/dev/null is no file"):
        store_file.connect(Path("/dev/null"))
    assert Path("/dev/null").stat().st_mode & 0o666 == 0o666


HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_that_somebody_holds_names_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(path)
    store.close()
    monkeypatch.setattr("qmp_client.lab.store_file.PATIENCE", 0.1)
    store = Store(path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(store_file.StoreLocked, match=rf"process {other.pid} \(python"):
            store.accept(a_job("one"), None, None)
        assert other.stdin is not None
        other.stdin.close()
    assert store.accept(a_job("one"), None, None) is Arrival.NEW
    store.close()


def test_work_does_not_grow_with_what_waits_or_is_done(store: Store) -> None:
    """Counted in SQLite's own steps, not in time: one job more costs the same among ten and among thousands."""

    def steps() -> int:
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        name = f"job-{next(numbers)}"
        store._db.set_progress_handler(step, 1)
        store.accept(a_job(name), None, None, [a_letter()])
        store.unfinished(2)
        store.count_unfinished()
        store.taken([letter.number for letter in store.outbox(1)])
        store._db.set_progress_handler(None, 1)
        return count

    numbers = count()
    store._db.execute("PRAGMA synchronous=OFF")
    for _ in range(KEPT + 10):
        steps()
    few = steps()
    for _ in range(3000):
        name = f"job-{next(numbers)}"
        store.accept(a_job(name), None, None, [a_letter()])
        if len(name) % 2:
            store.finish(a_result(name, "x" * 1000), [])
    steps()  # forgets what the broker has, once
    assert steps() < 2 * few


def test_kill_at_any_point(tmp_path: Path) -> None:
    """A process accepts, finishes and posts until SIGKILL ends it; what it had been told is stored is stored."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    path = tmp_path / "store.sqlite"
    accepted: set[str] = set()
    finished: dict[str, bytes] = {}
    for _ in range(25):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _work_until_killed(path, writer)
            finally:
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader) as told:
            first = told.readline()
            time.sleep(chance.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            promised = [first, *told.readlines()]
        store = Store(path)
        stored = results(path)
        waiting = [job.job.id for job in store.unfinished()]
        letters = [letter.topic for letter in store.outbox(1 << 20)]
        store.close()
        for word, name in (line.split() for line in promised if line.endswith("\n")):
            if word == "accepted":
                accepted.add(name)
            else:
                assert name in stored, f"seed {seed}"
        assert accepted <= set(waiting) | set(stored), f"seed {seed}"
        assert not set(waiting) & set(stored)
        assert {name: stored[name] for name in finished} == finished, "a result never changes"
        assert sorted(letters) == sorted(stored), "each result is posted with it, once"
        finished = stored
    assert len(finished) > 25


def _work_until_killed(path: Path, told: int) -> None:
    store = Store(path)
    for waiting in store.unfinished():
        _finish(store, waiting.job.id, told)
    for number in range(1 << 20):
        name = f"{os.getpid()}-{number}"
        store.accept(a_job(name), None, None)
        os.write(told, f"accepted {name}\n".encode())
        if number % 3:
            _finish(store, name, told)


def _finish(store: Store, name: str, told: int) -> None:
    store.finish(a_result(name, f"{os.getpid()}"), [Letter(name, encode(a_result(name)), "s", 60, retain=True)])
    os.write(told, f"finished {name}\n".encode())
