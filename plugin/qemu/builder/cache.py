"""Built QEMUs by what they were built from.

``<cache>/qemu/<hash>/`` is complete or not there; ``<cache>/qemu/current`` points to the one built or asked for last.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plugin.qemu.trouble import say

BINARY = Path("bin/qemu-system-x86_64")


def inputs_hash(identity: str, flags: tuple[str, ...], files: list[Path]) -> str:
    """Return a name for what is built from these inputs: 16 hexadecimal digits.

    ``files`` are the patches and the device list, by name and content.
    """
    digest = hashlib.sha256(repr((identity, flags)).encode())
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold the lock in a file; say ``waiting`` when another process holds it. The kernel frees it if we die."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Slot:
    """The place in the cache for one set of inputs."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.home = folder / name
        self.binary = self.home / BINARY
        self.work = folder / f"{name}.building"
        self.log = folder / f"{name}.log"
        self._lock = folder / f"{name}.lock"

    @property
    def built(self) -> bool:
        """Whether the binary is there, complete."""
        return self.binary.is_file()

    @contextmanager
    def building(self) -> Iterator[Path]:
        """Hold the lock and give an empty folder to build in; it is removed in the end, also after a failure."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self._lock, "another build of the same QEMU is running: waiting for it"):
            self._remove_leftovers()
            self.work.mkdir()
            try:
                yield self.work
            except KeyboardInterrupt:
                say("interrupted: removing the unfinished build")
                raise
            finally:
                shutil.rmtree(self.work, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Remove what killed builds left: this one's, whose lock we hold, and others' whose lock nobody holds."""
        shutil.rmtree(self.work, ignore_errors=True)
        for left in self.folder.glob("*.building"):
            with left.with_suffix(".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(left, ignore_errors=True)

    def install(self, finished: Path) -> None:
        """Put a complete folder in place at once."""
        shutil.rmtree(self.home, ignore_errors=True)
        finished.rename(self.home)

    def make_current(self) -> None:
        """Point ``current`` here."""
        pointer = self.folder / "current"
        if pointer.is_symlink() and pointer.readlink() == Path(self.home.name):
            return
        scratch = self.folder / f"current.{os.getpid()}"
        scratch.symlink_to(self.home.name)
        scratch.replace(pointer)
