"""Files that a command writes: looked at before anything runs, so that an hour's work does not end at a wrong path."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from qmp_client.errors import UsageError


def check_writable(paths: Iterable[Path | None]) -> None:
    """Raise UsageError for a path that cannot be written, and for two options that name the same one."""
    seen: set[Path] = set()
    for path in paths:
        if path is None:
            continue
        folder = path.absolute().parent
        if not folder.is_dir():
            raise UsageError(f"{path} cannot be written: there is no folder {folder}")
        if path.is_dir():
            raise UsageError(f"{path} cannot be written: it is a folder")
        if not os.access(path if path.exists() else folder, os.W_OK):
            raise UsageError(f"{path} cannot be written: Permission denied")
        if path.resolve() in seen and not path.is_char_device():
            raise UsageError(f"{path} is named twice: what is written first would be lost")
        seen.add(path.resolve())


def check_folder(folder: Path) -> None:
    """Raise UsageError for a folder that is not there and cannot be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "Permission denied" if there.is_dir() else f"{there} is no folder"
        raise UsageError(f"the folder {folder} cannot be made: {why}")


def write(path: Path, document: str | bytes) -> None:
    """Write a document, all of it or nothing: an interrupt leaves what was there before. Raises UsageError."""
    content = document.encode() if isinstance(document, str) else document
    try:
        target = path.resolve()  # a symbolic link stays one
        if not _can_be_replaced(path, target):
            path.write_bytes(content)
            return
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(name).chmod(_mode(target))
            Path(name).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _can_be_replaced(path: Path, target: Path) -> bool:
    """Whether a new file can take the path's place: not that of a pipe, nor in a folder that takes none."""
    if path.is_relative_to("/dev") or path.is_relative_to("/proc"):
        return False  # /dev/stdout is whatever file the shell has opened
    return (target.is_file() or not target.exists()) and os.access(target.parent, os.W_OK)


def _mode(path: Path) -> int:
    """The permissions of the file that is there, or those of a new one."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
