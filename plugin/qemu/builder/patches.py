"""The patch series: which patches, for which releases, and what of it a source tree needs."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from plugin.qemu.trouble import Missing

FOLDER = Path(__file__).resolve().parents[1] / "series"
FIRST_COMMAND = "x-query-tdx-config-cpuid"
COMMANDS_FILE = Path("qapi") / "misc-i386.json"
TDX_FILE = Path("target") / "i386" / "kvm" / "tdx.c"

OLD_FILE = re.compile(r"^--- a/(\S+)$", re.MULTILINE)
REMOVED_LINE = re.compile(r"^-(?!-- )(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Series:
    """Patches in the order they are applied."""

    patches: list[Path]
    releases: list[str]
    """The releases (``major.minor``) it was tried with, oldest first."""
    fixes: list[str]
    """The names of patches that a tree may need no more."""


def load(folder: Path) -> Series:
    """Read the series of a folder; its series.toml may be missing. Raises Missing for a folder without patches."""
    patches = sorted(folder.glob("*.patch"))
    if not patches:
        raise Missing(f"{folder} is no folder with patches")
    try:
        about = tomllib.loads((folder / "series.toml").read_text())
    except FileNotFoundError:
        about = {}
    return Series(patches, about.get("releases", []), about.get("fixes", []))


def old_files(patch: Path) -> list[str]:
    """The files that a patch changes."""
    return OLD_FILE.findall(patch.read_text())


def needed(series: Series, tree: Path) -> list[Path]:
    """The patches that a source tree needs: all but the fixes that it has."""
    return [patch for patch in series.patches if patch.name not in series.fixes or still_needed(patch, tree)]


def still_needed(fix: Path, tree: Path) -> bool:
    """Whether the tree has any of the lines that a fix removes."""
    removed = set(REMOVED_LINE.findall(fix.read_text()))
    return any(
        not removed.isdisjoint((tree / name).read_text().splitlines())
        for name in old_files(fix)
        if (tree / name).exists()
    )


def has_commands(tree: Path) -> bool:
    """Whether a source tree has the project's QMP commands already."""
    schema = tree / COMMANDS_FILE
    return schema.exists() and FIRST_COMMAND in schema.read_text()


def version_of(tree: Path) -> str:
    """A source tree's version. Raises Missing for what is no QEMU, or one that knows no TDX."""
    try:
        version = (tree / "VERSION").read_text().strip()
    except FileNotFoundError:
        raise Missing(f"{tree} is no QEMU source tree: no VERSION in it") from None
    if not (tree / TDX_FILE).exists():
        raise Missing(f"QEMU {version} knows no TDX: it takes QEMU 10.1 or newer")
    return version


def release_of(version: str) -> str:
    """``major.minor`` of a version. A development version, such as 11.1.50, counts as the release before it."""
    return ".".join(version.split(".")[:2])
