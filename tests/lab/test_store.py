"""One result for each accepted job, whatever happens to the process that stores them."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from qmp_client.errors import TdxCpuidError, UsageError
from qmp_client.lab.store import KEPT, Arrival, Letter, Store
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
    assert waiting == (a_job("one"), "reply", b"\0\xff", 0)


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
