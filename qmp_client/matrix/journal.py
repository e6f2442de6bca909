"""The file of results: one as JSON on each line, appended as cells end, so that an interrupted run can go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from qmp_client.errors import MissingError, UsageError
from qmp_client.matrix.result import Result


class Journal:
    """Appends results to a descriptor, each with one write."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def add(self, result: Result) -> None:
        """Append a result. Raises MissingError when the disk is full."""
        line = msgspec.json.encode(result) + b"\n"
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            raise MissingError(
                f"{self._path} cannot be written: {error.strerror}", hint="then the same command goes on from there"
            ) from error


@contextmanager
def appending(path: Path) -> Iterator[Journal]:
    """Open a file of results for more; a last line that was cut off is taken away. Raises UsageError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    try:
        os.ftruncate(descriptor, _whole_lines(descriptor))
        yield Journal(path, descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> list[Result]:
    """Every result in the file, oldest first; none when there is no file. Raises UsageError for another file."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file, so results cannot be read from it again")
    decoder = msgspec.json.Decoder(Result)
    results: list[Result] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break  # its writer was killed
                try:
                    results.append(decoder.decode(line))
                except (msgspec.DecodeError, RecursionError, ValueError) as error:
                    raise UsageError(
                        f"{path}, line {number}, is not a result of a matrix: {error}",
                        hint="name another file, or remove this one to start again",
                    ) from error
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return results


def _whole_lines(descriptor: int) -> int:
    """The size of the file up to its last line's end, in bytes."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - (1 << 16))
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
