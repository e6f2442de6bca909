"""``scripts/build-qemu --check SERIES DIR``: whether a series applies to a tree, and what moved there."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from itertools import groupby
from pathlib import Path

from plugin.qemu.builder import patches
from plugin.qemu.builder.patches import Series
from plugin.qemu.trouble import Missing

PATCH = ("patch", "-p1", "--batch", "--forward", "--no-backup-if-mismatch", "--fuzz=0", "-i")
"""No fuzz: the context is short, and a hunk without it would go anywhere."""

FILE = re.compile(r"^(?:patching|checking) file '?([^']+?)'?$")
MOVED = re.compile(r"^Hunk #(\d+) succeeded at \d+ \(offset (-?\d+ lines?)\)\.$")
NAMED = re.compile(r"^\|--- a/(\S+)")
FAILED = re.compile(r"^Hunk #(\d+) FAILED at (\d+)")


def series_of(name: str) -> Series:
    """The series for a release, or of a folder. Raises Missing."""
    ours = patches.load(patches.FOLDER)
    if name in ours.releases:
        return ours
    if not next(Path(name).glob("*.patch"), None):
        raise Missing(f"{name} is neither a series ({', '.join(ours.releases)}) nor a folder with patches")
    return patches.load(Path(name))


def check(series: Series, tree: Path) -> tuple[bool, list[str]]:
    """Apply the patches one after another to a copy of the files they change; the tree stays as it is.

    Returns whether all of them fit, and a sentence for each patch with what moved. Raises Missing for no QEMU tree,
    or one without TDX.
    """
    patches.version_of(tree)
    if shutil.which("patch") is None:
        raise Missing("needs patch: sudo apt-get install patch")
    fits, said, needed = True, [], patches.needed(series, tree)
    with tempfile.TemporaryDirectory(prefix="tdx-cpuid-check-") as folder:
        copy = Path(folder)
        for patch in series.patches:
            if patch not in needed:
                said.append(f"{patch.name}: not needed: what it removes is not in this tree")
                continue
            for name in patches.old_files(patch):
                target = copy / name
                if not target.exists() and (tree / name).exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(tree / name, target)
            done = subprocess.run([*PATCH, str(patch.resolve())], cwd=copy, capture_output=True, text=True, check=False)
            moved = what_moved(done.stdout)
            fits = fits and not done.returncode
            verdict = "does not fit" if done.returncode else "fits"
            said.append(f"{patch.name}: {verdict}" + (f": {'; '.join(moved)}" if moved else ""))
    return fits, said


def what_moved(output: str) -> list[str]:
    """Read patch(1)'s report: the hunks that did not go where the patch says, by file; misfits first. Pure."""
    found: list[tuple[str, str, str]] = []  # file, hunk, what of it
    file = ""
    for line in output.splitlines():
        if match := FILE.match(line):
            file = match[1]
        elif match := MOVED.match(line):
            found.append((file, match[1], f"moved by {match[2]}"))
        elif match := FAILED.match(line):
            found.append((file, match[1], f"failed at line {match[2]}"))
        elif "can't find file" in line:
            file = ""
        elif (match := NAMED.match(line)) and not file:  # among the lines that patch(1) quotes then
            found.append((match[1], "", "is not in the tree"))
        elif "previously applied" in line:
            found.append((file, "", "has it already"))
    found.sort(key=lambda one: one[2].startswith("moved"))
    return [together(list(group)) for _, group in groupby(found, key=lambda one: (one[0], one[2]))]


def together(alike: list[tuple[str, str, str]]) -> str:
    """Say what became of neighbouring hunks of a file, the same of each: ``cpu.c hunks 1-3 moved by 630 lines``."""
    file, first, what = alike[0]
    last = alike[-1][1]
    hunks = "" if not first else f" hunk {first}" if first == last else f" hunks {first}-{last}"
    return f"{file}{hunks} {what}"
