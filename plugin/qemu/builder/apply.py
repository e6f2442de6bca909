"""Putting the patch series onto a source tree."""

from __future__ import annotations

from pathlib import Path

from plugin.qemu.builder import patches
from plugin.qemu.builder.check import PATCH, check
from plugin.qemu.builder.patches import Series
from plugin.qemu.trouble import Missing, run, say


def apply(series: Series, tree: Path, log: Path) -> None:
    """Apply a series to a tree of our own. Raises Missing, with the tree as it was, if it does not fit."""
    version = patches.version_of(tree)
    tried = ", ".join(series.releases)
    if patches.release_of(version) not in series.releases:
        say(f"no patch series was made for QEMU {version} (there is one for {tried}): trying that one")
    fits, said = check(series, tree)
    if not fits:
        misfits = "\n".join(f"    {line}" for line in said if "does not fit" in line)
        raise Missing(
            f"the patches do not fit this tree, which is QEMU {version} (they were made for {tried}):\n{misfits}\n"
            f"Apply those of {series.patches[0].parent} by hand (patch -p1) and build that tree with --source."
        )
    for patch in patches.needed(series, tree):
        run([*PATCH, str(patch)], cwd=tree, log=log, what=f"applying {patch.name}")
