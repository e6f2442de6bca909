"""The patch series for each QEMU release, and how it is applied to a tree."""

from __future__ import annotations

from pathlib import Path

from plugin.qemu.trouble import Missing, Trouble, run, say

SERIES = Path(__file__).resolve().parents[1]
"""The folder with one folder of patches for each release."""

FIRST_COMMAND = "x-query-tdx-config-cpuid"


def releases() -> list[str]:
    """Return the releases there is a series for, oldest first."""
    names = [folder.name for folder in SERIES.iterdir() if next(folder.glob("*.patch"), None)]
    return sorted(names, key=lambda name: [int(part) for part in name.split(".")])


def series(release: str) -> list[Path]:
    """Return one series in the order it is applied."""
    return sorted((SERIES / release).glob("*.patch"))


def release_of(tree: Path) -> str:
    """Return a source tree's release as ``major.minor``."""
    major, minor, *_ = (tree / "VERSION").read_text().strip().split(".")
    return f"{major}.{minor}"


def apply(tree: Path, log: Path) -> None:
    """Apply the series for the tree's release to it, unless it has the commands already.

    Raises Trouble naming the patch that does not fit.
    """
    if FIRST_COMMAND in (tree / "qapi" / "misc-i386.json").read_text():
        say("the tree has the QMP commands already: building it as it is")
        return
    release = release_of(tree)
    known = releases()
    if release not in known:
        say(f"there is no patch series for QEMU {release}: trying the one for {known[-1]}")
        release = known[-1]
    for patch in series(release):
        try:
            run(
                ["patch", "-p1", "--batch", "--forward", "--no-backup-if-mismatch", "-i", str(patch)],
                cwd=tree,
                log=log,
                what=f"applying {patch.name}",
            )
        except Trouble as trouble:
            raise Missing(
                f"{trouble}\nThe series in plugin/qemu/{release} does not fit this tree (QEMU {release_of(tree)})."
                " Apply it there by hand and build with --source."
            ) from trouble
