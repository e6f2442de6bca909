"""The file behind a store: that one agent has it and nobody else can read it, its tables, and who else writes to it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from qmp_client.errors import MissingError, UsageError

VERSION = 1
PATIENCE = 5.0
"""Seconds for which a write waits for another program's."""
WRITE_LOCK = 120
"""The byte of the ``-shm`` file that whoever writes has locked (SQLite's WAL-index format)."""
ELSEWHERE = "--state names another file"

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
LATER = """
CREATE TABLE IF NOT EXISTS set_aside (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    what TEXT NOT NULL,
    payload BLOB,
    reason TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS kept ON outbox (number) WHERE taken;
"""
"""What files of this version got later; programs that do not know of it can use them all the same."""


class StoreLocked(MissingError):
    """Another program has the file locked for writing."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} cannot be written: for {PATIENCE:g} s {holder(path)} has had it locked",
            hint="what the agent promised so far is stored; end that program and start the agent again",
        )


def lock(path: Path) -> int:
    """The descriptor of the lock beside the file; closing it lets another agent have the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MissingError(f"{path} cannot be made: {error.strerror}", hint=ELSEWHERE) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise UsageError(f"another agent uses {path}", hint="give each agent its own --host") from error
    return held


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, or make it. Whatever the umask, it is for its owner alone, and so is what SQLite puts beside it.

    Raises MissingError when it cannot be had.
    """
    try:
        _make_private(path)
        for beside in ("-wal", "-shm"):  # of an agent that was killed
            with suppress(FileNotFoundError):
                Path(f"{path}{beside}").chmod(0o600)
    except OSError as error:
        raise MissingError(f"{path} cannot be made: {error.strerror}", hint=ELSEWHERE) from error
    db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    db.text_factory = _text
    return db


def _make_private(path: Path) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise UsageError(f"{path} is no file", hint=ELSEWHERE)
        os.fchmod(file, 0o600)
    finally:
        os.close(file)


def _text(data: bytes) -> str:
    """A text of the file, even a damaged one."""
    return data.decode(errors="replace")


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file. Raises UsageError for a file of another version."""
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA foreign_keys=ON")
    with Transaction(db, path):
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            _run(db, TABLES)
            db.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            raise UsageError(
                f"{path} was written by another version of tdx-cpuid (format {version}, not {VERSION})",
                hint="run that version, or begin with another file: --state names it",
            )
        _run(db, LATER)


def _run(db: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):
        db.execute(statement)


class Transaction:
    """Everything in the block, or nothing."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def __enter__(self) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if is_busy(error):
                raise StoreLocked(self._path) from error
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # SQLite itself takes it back when the disk is full
                self._db.execute("ROLLBACK")


def is_busy(error: sqlite3.Error) -> bool:
    """Whether an error is only that somebody else has a lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def holder(path: Path) -> str:
    """Who has the file locked for writing, in words."""
    for process in _writers(path):
        with suppress(OSError):
            name = Path(f"/proc/{process}/comm").read_text().strip()
            return f"process {process} ({name})"
    return "a program that cannot be seen from here"


def _writers(path: Path) -> Iterator[int]:
    """The processes with a lock for writing, by the kernel's list: looking for locks itself could drop ours."""
    inodes = {}
    for name, byte in ((f"{path}-shm", WRITE_LOCK), (str(path), None)):
        with suppress(OSError):
            inodes[Path(name).stat().st_ino] = byte
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            match line.split():  # 1: POSIX  ADVISORY  WRITE 1234 fe:01:5678 120 120
                case [_, "POSIX", _, "WRITE", process, place, first, last]:
                    inode = int(place.rpartition(":")[2])
                    if inode in inodes and int(process) not in (0, os.getpid()):
                        byte = inodes[inode]
                        if byte is None or int(first) <= byte <= (byte if last == "EOF" else int(last)):
                            yield int(process)
