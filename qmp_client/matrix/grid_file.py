"""``--file grid.toml``: a grid that can be kept in a repository.

Keys are the options' names. Each axis takes a string or a list of strings::

    cpu = ["host", "SapphireRapids*"]
    machine = ["pc-q35-10.1", "q35"]
    module = "all"
    platform = ["emerald-rapids", "granite-rapids"]
    qemu = ["../build/qemu-system-x86_64"]      # paths start at the file's folder
    smp = "1"
    kvm = "upstream"
    choose = "model"
    guest = "linux"
    fail-on = "forced-off,critical"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qmp_client import given
from qmp_client.errors import UsageError, nearest

AXES = ("cpu", "machine", "module", "platform", "qemu", "smp", "kvm")
SINGLE = ("choose", "guest", "fail-on")


def read(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a grid. Raises UsageError that names the file and the key at fault."""
    content = given.toml("the grid", path)
    return {key: tuple(_placed(key, word, path.parent) for word in _words(path, key, content[key])) for key in content}


def _words(path: Path, key: str, value: Any) -> list[str]:
    if key not in AXES + SINGLE:
        known = AXES + SINGLE
        raise UsageError(f"{path}: unknown key {key}", hint=nearest(key, known) or f"it takes {', '.join(known)}")
    words = value if isinstance(value, list) and key in AXES else [value]
    for place, word in enumerate(words):
        where = f"{key}[{place}]" if isinstance(value, list) and key in AXES else key
        if not isinstance(word, str):
            wanted = "a string" if key in SINGLE or isinstance(value, list) else "a string or a list of strings"
            like = f' (write "{word}")' if isinstance(word, int | float) and not isinstance(word, bool) else ""
            raise UsageError(f"{path}: {where} is {_kind(word)}; it takes {wanted}{like}")
        if not word:
            raise UsageError(f"{path}: {where} is empty")
    if not words:
        raise UsageError(f"{path}: {key} is an empty list, so the grid has no cell")
    return words


def _placed(key: str, word: str, folder: Path) -> str:
    """Paths in the file start at its folder; a name without a slash is looked for in PATH, or is no path."""
    file = key == "qemu" or (key in ("platform", "choose") and word.endswith(".json"))
    if not file or ("/" not in word and not word.endswith(".json")):
        return word
    return str(folder / Path(word).expanduser())


def _kind(value: object) -> str:
    kinds = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return kinds.get(type(value), f"a {type(value).__name__}")
