"""``scripts/build-qemu --check SERIES DIR``: whether a series applies to a tree, and what moved there."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from plugin.qemu.builder import patches
from plugin.qemu.trouble import Missing

CHANGED = re.compile(r"^--- a/(\S+)$", re.MULTILINE)
FILE = re.compile(r"^(?:patching|checking) file '?([^']+?)'?$")
MOVED = re.compile(r"^Hunk #(\d+) succeeded at \d+ (.*)\.$")
FAILED = re.compile(r"^Hunk #(\d+) FAILED at (\d+)")


def series_of(name: str) -> list[Path]:
    """The patches of a release's series, or of a folder. Raises Missing."""
    folder = patches.SERIES / name if name in patches.releases() else Path(name)
    found = sorted(folder.glob("*.patch"))
    if not found:
        raise Missing(f"{name} is neither a series ({', '.join(patches.releases())}) nor a folder with patches")
    return found


def check(series: list[Path], tree: Path) -> tuple[bool, list[str]]:
    """Apply the patches one after another to a copy of the files they change; the tree stays as it is.

    Returns whether all of them fit, and a sentence for each patch with what moved. Raises Missing for no QEMU tree.
    """
    if not (tree / "VERSION").exists() or not (tree / "qapi").exists():
        raise Missing(f"{tree} is no QEMU source tree")
    if shutil.which("patch") is None:
        raise Missing("needs patch: sudo apt-get install patch")
    fits, said = True, []
    with tempfile.TemporaryDirectory(prefix="tdx-cpuid-check-") as folder:
        copy = Path(folder)
        for patch in series:
            for name in CHANGED.findall(patch.read_text()):
                target = copy / name
                if not target.exists() and (tree / name).exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(tree / name, target)
            done = subprocess.run(
                ["patch", "-p1", "--batch", "--forward", "--no-backup-if-mismatch", "-i", str(patch.resolve())],
                cwd=copy, capture_output=True, text=True, check=False,
            )  # fmt: skip
            moved = what_moved(done.stdout)
            fits = fits and not done.returncode
            verdict = "does not fit" if done.returncode else "fits"
            said.append(f"{patch.name}: {verdict}" + (f": {'; '.join(moved)}" if moved else ""))
    return fits, said


def what_moved(output: str) -> list[str]:
    """Read patch(1)'s report: the hunks that did not go where the patch says, by file. Pure."""
    found, file = [], ""
    for line in output.splitlines():
        if match := FILE.match(line):
            file = match[1]
        elif match := MOVED.match(line):
            found.append(f"{file} hunk {match[1]} {match[2].strip('()')}")
        elif match := FAILED.match(line):
            found.append(f"{file} hunk {match[1]} failed at line {match[2]}")
        elif "can't find file" in line:
            found.append("a file that it changes is not in the tree")
        elif "previously applied" in line:
            found.append(f"{file} has it already")
    return found
