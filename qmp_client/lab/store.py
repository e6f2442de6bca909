"""What an agent has accepted, what became of it, and what the broker has not taken yet, in one SQLite file.

Every method is one transaction that is on the disk when it returns (WAL, ``synchronous=FULL``), so an agent that is
killed at any point finds on its next start what it had promised. Order is that of row numbers; no clock decides.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

import msgspec

from qmp_client.errors import MissingError, UsageError
from qmp_client.lab.wire import Job, Result, encode

VERSION = 1
IDENTITY = "identity"
KEPT = 1000
"""Messages that are kept after the broker took them, for a broker that loses its memory."""
REJECTIONS_KEPT = 10_000

TABLES = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    payload BLOB NOT NULL,
    digest TEXT NOT NULL,
    response_topic TEXT,
    correlation BLOB,
    attempts INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE results (job TEXT PRIMARY KEY REFERENCES jobs (id), payload BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE rejections (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL,
    digest TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    schema TEXT NOT NULL,
    retain INTEGER NOT NULL,
    expiry INTEGER NOT NULL,
    correlation BLOB,
    taken INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX untaken ON outbox (number) WHERE NOT taken;
CREATE TABLE measured (pool TEXT, cpu TEXT, payload BLOB NOT NULL, PRIMARY KEY (pool, cpu)) WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


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
        with ExitStack() as opened:
            self._lock = _lock(path)
            opened.callback(os.close, self._lock)
            try:
                self._db = opened.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute("PRAGMA foreign_keys=ON")
                self._make_tables(path)
                self.identity = self.setting(IDENTITY) or secrets.randbits(48) + 1
                """A number that no other file has."""
                self.set(IDENTITY, self.identity)
            except sqlite3.Error as error:
                raise MissingError(f"{path}: {error}", hint="--state names another file") from error
            self._opened = opened.pop_all()

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
            self._db.execute(
                "INSERT INTO jobs (id, payload, digest, response_topic, correlation) VALUES (?, ?, ?, ?, ?)",
                (job.id, payload, digest, response_topic, correlation),
            )
            self._post(letters)
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

    def unfinished(self, most: int = -1) -> list[Accepted]:
        """The jobs without a result, in the order in which they were accepted; the first ``most`` of them, or all."""
        rows = self._db.execute(
            "SELECT payload, response_topic, correlation, attempts FROM jobs"
            " WHERE id NOT IN (SELECT job FROM results) ORDER BY number LIMIT ?",
            (most,),
        )
        return [Accepted(msgspec.json.decode(payload, type=Job), *rest) for payload, *rest in rows]

    def count_unfinished(self) -> int:
        """How many jobs have no result."""
        return int(
            self._db.execute("SELECT (SELECT COUNT(*) FROM jobs) - (SELECT COUNT(*) FROM results)").fetchone()[0]
        )

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
            self._forget()
            self._post(letters)
        return True

    def _forget(self) -> None:
        """Let go of jobs that were done long ago, so that the file does not grow for ever."""
        old = self._db.execute(
            "SELECT id FROM jobs JOIN results ON job = id WHERE number <= (SELECT MAX(number) FROM jobs) - ?",
            (self._jobs_kept,),
        ).fetchall()
        self._db.executemany("DELETE FROM results WHERE job = ?", old)
        self._db.executemany("DELETE FROM jobs WHERE id = ?", old)

    def result(self, job: str) -> bytes | None:
        """The stored result of a job."""
        row = self._db.execute("SELECT payload FROM results WHERE job = ?", (job,)).fetchone()
        return None if row is None else bytes(row[0])

    def measured(self, pool: str, cpu: str) -> Result | None:
        """The last measurement of a model."""
        row = self._db.execute("SELECT payload FROM measured WHERE pool = ? AND cpu = ?", (pool, cpu)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=Result)

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
        )
        return [Letter(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6]) for row in rows]

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
        return int(row[0]) if row else 0

    def set(self, name: str, value: int) -> None:
        """Keep a number."""
        self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def _post(self, letters: Sequence[Letter]) -> None:
        self._db.executemany(
            "INSERT INTO outbox (topic, payload, schema, expiry, retain, correlation) VALUES (?, ?, ?, ?, ?, ?)",
            [letter[:6] for letter in letters],
        )

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def _make_tables(self, path: Path) -> None:
        with self._transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise UsageError(
                    f"{path} was written by another version of tdx-cpuid (format {version}, not {VERSION})",
                    hint="run that version, or begin with another file: --state names it",
                )


def _lock(path: Path) -> int:
    """The descriptor of the lock beside the file; closing it lets another agent have the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MissingError(f"{path} cannot be made: {error.strerror}", hint="--state names another file") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise UsageError(f"another agent uses {path}", hint="give each agent its own --host") from error
    return lock


class _Transaction:
    """Everything in the block, or nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # SQLite itself takes it back when the disk is full
                self._db.execute("ROLLBACK")
