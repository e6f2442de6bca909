"""What an agent has accepted, what became of it, and what the broker has not taken yet, in one SQLite file.

Every method is one transaction that is on the disk when it returns (WAL, ``synchronous=FULL``), so an agent that is
killed at any point finds on its next start what it had promised. Order is that of row numbers; no clock decides.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from enum import Enum, auto
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from qmp_client.errors import MissingError
from qmp_client.lab import store_file
from qmp_client.lab.wire import NAME, Job, Result, encode

T = TypeVar("T")
IDENTITY = "identity"
KEPT = 1000
"""Messages that are kept after the broker took them, for a broker that loses its memory."""
REJECTIONS_KEPT = 10_000

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)
"""What reading stored bytes can raise."""
SET_ASIDE_KEPT = 100
"""Rows and messages that nobody could use; of older ones not even the bytes are kept."""


class Letter(NamedTuple):
    """A message on its way to the broker."""

    topic: str
    payload: bytes
    schema: str
    expiry: int
    """Seconds for which the broker keeps it for those who are away."""
    retain: bool = False
    correlation: bytes | None = None
    number: int = 0
    """Its place in the outbox, once it is there."""
    response_topic: str | None = None
    """Where an answer to it is wanted; what is in the outbox wants none."""


class Accepted(NamedTuple):
    """A job that has no result yet."""

    job: Job
    response_topic: str | None
    correlation: bytes | None
    attempts: int
    """How often it was begun before."""
    unreadable: str = ""
    """Why the stored bytes are no job for this version, if so; then ``job`` has its id and nothing else."""


class Arrival(Enum):
    """What a job that arrives is."""

    NEW = auto()
    KNOWN = auto()
    """The same job again: delivered twice, or sent again by somebody who wants its result."""
    OTHER = auto()
    """Another job under an id that is taken."""


class Store:
    """The file, which one agent at a time may use."""

    def __init__(self, path: Path, jobs_kept: int = 10_000) -> None:
        """Open or make the file. Raises UsageError when another agent has it, MissingError when it cannot be had.

        Of the last ``jobs_kept`` jobs the results are kept; older ones, if they are done, are forgotten.
        """
        self._jobs_kept = jobs_kept
        self._path = path
        with ExitStack() as opened:
            opened.callback(os.close, store_file.lock(path))
            try:
                self._db = opened.enter_context(closing(store_file.connect(path)))
                store_file.prepare(self._db, path)
                self.identity = self.setting(IDENTITY) or secrets.randbits(48) + 1
                """A number that no other file has."""
                self.set(IDENTITY, self.identity)
                self._open = self._without_a_result()
                """The numbers of the jobs without a result by their ids, in the order of their acceptance."""
            except sqlite3.Error as error:
                if store_file.is_busy(error):
                    raise store_file.StoreLocked(path) from error
                raise MissingError(f"{path}: {error}", hint=store_file.ELSEWHERE) from error
            self._opened = opened.pop_all()

    def _without_a_result(self) -> dict[str, int]:
        """Find them once: results are large, and a search for those that are not there gets slow with their number."""
        ended = {job for (job,) in self._db.execute("SELECT job FROM results")}
        found: dict[str, int] = {}
        for number, job in self._db.execute("SELECT number, id FROM jobs ORDER BY number").fetchall():
            if job in ended:
                continue
            name = job
            if not isinstance(job, str) or not re.match(NAME, job):
                name = f"unreadable-{number}"
                with self._transaction():
                    self._db.execute("UPDATE jobs SET id = ? WHERE number = ?", (name, number))
            found[name] = number
        return found

    def close(self) -> None:
        """Close the file and let another agent have it."""
        self._opened.close()

    def accept(
        self, job: Job, response_topic: str | None, correlation: bytes | None, letters: Sequence[Letter] = ()
    ) -> Arrival:
        """Store a job and what shall be said about it, unless its id is there already."""
        payload = encode(job)
        digest = hashlib.sha256(payload).hexdigest()
        with self._transaction():
            row = self._db.execute("SELECT digest FROM jobs WHERE id = ?", (job.id,)).fetchone()
            if row is not None:
                return Arrival.KNOWN if row[0] == digest else Arrival.OTHER
            number = self._db.execute(
                "INSERT INTO jobs (id, payload, digest, response_topic, correlation) VALUES (?, ?, ?, ?, ?)",
                (job.id, payload, digest, response_topic, correlation),
            ).lastrowid
            self._post(letters)
        self._open[job.id] = int(number or 0)
        return Arrival.NEW

    def knows(self, job: str) -> bool:
        """Whether a job of that id was ever accepted."""
        return self._db.execute("SELECT 1 FROM jobs WHERE id = ?", (job,)).fetchone() is not None

    def reject(self, job: str, digest: str, reason: str, letters: Sequence[Letter]) -> None:
        """Record why a payload was not accepted."""
        with self._transaction():
            self._db.execute("INSERT INTO rejections (job, digest, reason) VALUES (?, ?, ?)", (job, digest, reason))
            self._db.execute(
                "DELETE FROM rejections WHERE number <= (SELECT MAX(number) FROM rejections) - ?", (REJECTIONS_KEPT,)
            )
            self._post(letters)

    def unfinished(self, most: int | None = None) -> list[Accepted]:
        """The jobs without a result, in the order in which they were accepted; the first ``most`` of them, or all."""
        return [self._accepted(name, number) for name, number in islice(self._open.items(), most)]

    def _accepted(self, name: str, number: int) -> Accepted:
        payload, topic, correlation, attempts = self._db.execute(
            "SELECT payload, response_topic, correlation, attempts FROM jobs WHERE number = ?", (number,)
        ).fetchone()
        topic, correlation = _if_it_is(topic, str), _if_it_is(correlation, bytes)
        attempts = _if_it_is(attempts, int) or 0
        try:
            job = msgspec.json.decode(payload, type=Job)
        except UNREADABLE as error:
            return Accepted(Job(id=name, cpu=""), topic, correlation, attempts, f"{error}")
        if job.id != name:
            return Accepted(Job(id=name, cpu=""), topic, correlation, attempts, f"they are of a job called {job.id}")
        return Accepted(job, topic, correlation, attempts)

    def count_unfinished(self) -> int:
        """How many jobs have no result."""
        return len(self._open)

    def begin(self, job: str, letters: Sequence[Letter] = ()) -> None:
        """Count another attempt at a job."""
        with self._transaction():
            self._db.execute("UPDATE jobs SET attempts = attempts + 1 WHERE id = ?", (job,))
            self._post(letters)

    def finish(self, result: Result, letters: Sequence[Letter], baseline: tuple[str, str] | None = None) -> bool:
        """Store a job's result, what shall be said about it, and whether it is what (pool, cpu) is held against next.

        Say whether it was the first one; a second changes nothing. Raises sqlite3.IntegrityError for a job that was
        never accepted.
        """
        payload = encode(result)
        with self._transaction():
            if self._db.execute("SELECT 1 FROM results WHERE job = ?", (result.job,)).fetchone():
                return False
            self._db.execute("INSERT INTO results VALUES (?, ?)", (result.job, payload))
            if baseline is not None:
                self._db.execute("INSERT OR REPLACE INTO measured VALUES (?, ?, ?)", (*baseline, payload))
            self._forget(result.job)
            self._post(letters)
        self._open.pop(result.job, None)
        return True

    def _forget(self, ended: str) -> None:
        """Let go of jobs that were done long ago, so that the file does not grow for ever."""
        old = [
            (job,)
            for (job,) in self._db.execute(
                "SELECT id FROM jobs WHERE number <= (SELECT MAX(number) FROM jobs) - ?", (self._jobs_kept,)
            )
            if job == ended or job not in self._open
        ]
        self._db.executemany("DELETE FROM results WHERE job = ?", old)
        self._db.executemany("DELETE FROM jobs WHERE id = ?", old)

    def result(self, job: str) -> bytes | None:
        """The stored result of a job."""
        row = self._db.execute("SELECT payload FROM results WHERE job = ?", (job,)).fetchone()
        return None if row is None else _bytes(row[0])

    def measured(self, pool: str, cpu: str) -> Result | None:
        """The last measurement of a model."""
        row = self._db.execute("SELECT payload FROM measured WHERE pool = ? AND cpu = ?", (pool, cpu)).fetchone()
        if row is None:
            return None
        try:
            return msgspec.json.decode(row[0], type=Result)
        except UNREADABLE as error:
            with self._transaction():
                self._set_aside(f"the measurement of {cpu}", row[0], f"{error}")
                self._db.execute("DELETE FROM measured WHERE pool = ? AND cpu = ?", (pool, cpu))
            return None

    def post(self, letters: Sequence[Letter]) -> None:
        """Put messages into the outbox."""
        with self._transaction():
            self._post(letters)

    def outbox(self, most: int) -> list[Letter]:
        """The oldest messages that the broker has not taken."""
        rows = self._db.execute(
            "SELECT topic, payload, schema, expiry, retain, correlation, number FROM outbox"
            " WHERE NOT taken ORDER BY number LIMIT ?",
            (most,),
        ).fetchall()
        letters = []
        for row in rows:
            try:
                letters.append(_letter(row))
            except msgspec.ValidationError as error:
                with self._transaction():
                    self._set_aside(f"message {row[-1]}", row[1], f"{error}")
                    self._db.execute("DELETE FROM outbox WHERE number = ?", (row[-1],))
        return letters

    def set_aside(self, letter: Letter, reason: str) -> None:
        """Do not send a message any more, and keep it with the reason; a broker that forgets is sent it again."""
        with self._transaction():
            self._set_aside(letter.topic, letter.payload, reason)
            self._db.execute("UPDATE outbox SET taken = 1 WHERE number = ?", (letter.number,))

    def _set_aside(self, what: str, payload: object, reason: str) -> None:
        self._db.execute("INSERT INTO set_aside (what, payload, reason) VALUES (?, ?, ?)", (what, payload, reason))
        self._db.execute(
            "DELETE FROM set_aside WHERE number <= (SELECT MAX(number) FROM set_aside) - ?", (SET_ASIDE_KEPT,)
        )

    def taken(self, numbers: Sequence[int]) -> int:
        """Note that the broker has these; return the number up to which it now has everything."""
        with self._transaction():
            self._db.executemany("UPDATE outbox SET taken = 1 WHERE number = ?", [(number,) for number in numbers])
            self._db.execute(
                "DELETE FROM outbox WHERE taken AND number <= (SELECT MAX(number) FROM outbox) - ?", (KEPT,)
            )
        return self.delivered()

    def delivered(self) -> int:
        """The number up to which the broker has taken everything."""
        first = self._db.execute("SELECT MIN(number) FROM outbox WHERE NOT taken").fetchone()[0]
        last = self._db.execute("SELECT MAX(number) FROM outbox").fetchone()[0]
        return int(first - 1 if first is not None else last or 0)

    def send_again(self, after: int) -> int:
        """Put back what the broker took after that number, because it has forgotten; say how many messages."""
        with self._transaction():
            return self._db.execute("UPDATE outbox SET taken = 0 WHERE taken AND number > ?", (after,)).rowcount

    def setting(self, name: str) -> int:
        """A number that outlives the agent; 0 until it is set."""
        row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return (_if_it_is(row[0], int) or 0) if row else 0

    def set(self, name: str, value: int) -> None:
        """Keep a number."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def _post(self, letters: Sequence[Letter]) -> None:
        self._db.executemany(
            "INSERT INTO outbox (topic, payload, schema, expiry, retain, correlation) VALUES (?, ?, ?, ?, ?, ?)",
            [letter[:6] for letter in letters],
        )

    def _transaction(self) -> store_file.Transaction:
        return store_file.Transaction(self._db, self._path)


def _letter(row: tuple[object, ...]) -> Letter:
    """A row of the outbox. Raises msgspec.ValidationError for one that is none."""
    topic, payload, *rest = row
    schema, expiry, retain, correlation, number = msgspec.convert(
        rest, tuple[str, int, bool, bytes | None, int], strict=False
    )
    return Letter(msgspec.convert(topic, str), _bytes(payload), schema, expiry, retain, correlation, number)


def _bytes(value: object) -> bytes:
    """What is stored as bytes; SQLite takes anything anywhere."""
    return value if isinstance(value, bytes) else str(value).encode()


def _if_it_is(value: object, kind: type[T]) -> T | None:
    return value if isinstance(value, kind) else None
