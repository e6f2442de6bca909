"""What a cell's result depends on, hashed, so that a result can be told from a stale one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

import plugin
import qmp_client
from plugin.tdx_module import Controls
from plugin.tdx_module.guests import LINUX, Guest
from qmp_client.errors import UsageError
from qmp_client.matrix.result import Cell
from qmp_client.negotiation.wish import Wish


class Inputs(NamedTuple):
    """What all cells of a run share."""

    firmware: Path
    wish: Wish
    guest: Guest = LINUX

    def of(self, cell: Cell) -> str:
        """32 hexadecimal digits that change whenever another run of the cell could have another result.

        They cover the cell, the contents of its QEMU, the firmware, the choice, the guest, a platform given as a file,
        and tdx-cpuid's own files.
        """
        whole = hashlib.sha256(msgspec.json.encode(cell))
        for part in (
            contents(Path(cell.qemu)),
            contents(self.firmware),
            _wish(self.wish),
            repr(self.guest._replace(controls=Controls())).encode(),
            repr([sorted(word) if isinstance(word, frozenset) else word for word in self.guest.controls]).encode(),
            _platform(cell),
            own_files(),
        ):
            whole.update(part)
        return whole.hexdigest()[:32]


@lru_cache
def contents(path: Path) -> bytes:
    """The SHA-256 of a file. Raises UsageError when it cannot be read."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} cannot be read: it is no regular file")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, _sha256()).digest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache
def own_files() -> bytes:
    """The SHA-256 of the program: its code, and the tables of modules, platforms and fields."""
    whole = hashlib.sha256()
    for package in (plugin, qmp_client):
        for root in package.__path__:
            for path in sorted(Path(root).rglob("*")):
                if path.suffix in (".py", ".json", ".csv"):
                    whole.update(str(path.relative_to(root)).encode())
                    whole.update(path.read_bytes())
    return whole.digest()


@lru_cache
def _wish(wish: Wish) -> bytes:
    return repr((wish.policy, wish.entries, wish.attributes, wish.xfam)).encode()


def _platform(cell: Cell) -> bytes:
    path = Path(cell.platform)
    return contents(path) if path.is_file() else b""


def _sha256() -> Callable[[], hashlib._Hash]:
    return hashlib.sha256
