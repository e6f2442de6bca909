"""Where QEMU's source comes from: the distribution's source package, a tarball, or a developer's tree."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

from plugin.qemu.distribution import Wanted, fetch, os_release, this_distribution
from plugin.qemu.trouble import Missing, Trouble, run

RELEASE = "10.2"
"""The release that is taken from the distribution; there is a patch series for it."""

WANTED = Wanted(
    package="qemu",
    version=f"{RELEASE}.",
    source=True,
    name=f"source package of QEMU {RELEASE}",
    instead="Give QEMU's source yourself: scripts/build-qemu --tarball qemu-10.2.2.tar.xz (a release tarball from the"
    " QEMU project) or --source DIR (a tree of your own). Other scripts take the binary that TDX_CPUID_QEMU names.",
)


class Source(Protocol):
    """A source of QEMU."""

    def identity(self) -> str:
        """What tells this source from another; changes whenever its content does."""
        ...

    def unpack(self, tree: Path, log: Path) -> None:
        """Create ``tree`` with the source in it. Raises Trouble."""
        ...


class DistributionSource:
    """The source package of one QEMU release, with the distribution's own patches applied.

    They replace what refers to firmware blobs that the distribution leaves out of its tarball.
    """

    def __init__(self, downloads: Path) -> None:
        name = this_distribution(os_release(), WANTED).name.lower()
        self._name = f"{name}-{RELEASE}"
        self._folder = downloads / self._name

    def identity(self) -> str:
        """The release: which of its minor versions and revisions it is, is not known before apt is asked."""
        return self._name

    def unpack(self, tree: Path, log: Path) -> None:
        """Download the source package unless it was, and unpack it."""
        if not self._folder.exists():
            self._download(tree.with_name("download"))
        [description] = self._folder.glob("qemu_*.dsc")
        run(["dpkg-source", "-x", str(description), str(tree)], log=log, what="unpacking the source")

    def _download(self, scratch: Path) -> None:
        """All of it or nothing; a build from other patches may download at the same time."""
        scratch.mkdir()
        fetch(WANTED, scratch)
        shutil.rmtree(scratch / "apt")
        self._folder.parent.mkdir(exist_ok=True)
        try:
            scratch.rename(self._folder)
        except OSError:
            if not self._folder.exists():
                raise


class Tarball:
    """A release tarball (``qemu-X.Y.Z.tar.xz`` or another compression)."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise Missing(f"{path}: no such file")
        self._path = path.resolve()

    def identity(self) -> str:
        """The file's SHA-256."""
        with self._path.open("rb") as content:
            return f"tarball {hashlib.file_digest(content, 'sha256').hexdigest()}"

    def unpack(self, tree: Path, log: Path) -> None:
        """Unpack it; its one top folder becomes ``tree``."""
        scratch = tree.with_name(tree.name + ".unpacking")
        scratch.mkdir()
        run(["tar", "-xf", str(self._path), "-C", str(scratch)], log=log, what=f"unpacking {self._path}")
        tops = list(scratch.iterdir())
        if len(tops) != 1 or not (tops[0] / "configure").is_file():
            raise Trouble(f"{self._path} does not look like QEMU's source: no configure in one top folder")
        tops[0].rename(tree)
        scratch.rmdir()


class OwnTree:
    """A developer's tree. It is copied, never changed."""

    def __init__(self, path: Path) -> None:
        if not (path / "configure").is_file() or not (path / "VERSION").is_file():
            raise Missing(f"{path} does not look like QEMU's source: no configure and VERSION in it")
        self._path = path.resolve()

    def identity(self) -> str:
        """With git: the commit and what differs from it. Without: every file's name, size and time."""
        digest = hashlib.sha256(str(self._path).encode())
        commit = self._git("rev-parse", "HEAD")
        if commit is None:
            for path in self._files():
                status = path.lstat()
                digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        else:
            digest.update(commit)
            digest.update(self._git("diff", "HEAD", "--binary") or b"")
            for name in (self._git("ls-files", "-z", "--others", "--exclude-standard") or b"").split(b"\0"):
                path = self._path / os.fsdecode(name)
                if name and path.is_file():
                    digest.update(name + b"\0" + path.read_bytes())
        return f"tree {digest.hexdigest()}"

    def unpack(self, tree: Path, log: Path) -> None:
        """Copy the tree without its history and its build folders."""
        try:
            shutil.copytree(self._path, tree, symlinks=True, ignore=self._not_source)
        except shutil.Error as error:
            name, _, why = error.args[0][0]
            raise Trouble(f"copying the tree failed, at {name}: {why}") from error

    def _git(self, *arguments: str) -> bytes | None:
        if not (self._path / ".git").exists():
            return None
        done = subprocess.run(["git", "-C", self._path, *arguments], capture_output=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def _files(self) -> list[Path]:
        found = []
        for folder, subfolders, files in os.walk(self._path):
            unwanted = self._not_source(folder, subfolders)
            subfolders[:] = sorted(name for name in subfolders if name not in unwanted)
            found += [Path(folder, name) for name in sorted(files)]
        return found

    def _not_source(self, folder: str, names: list[str]) -> set[str]:
        here = Path(folder)
        return {name for name in names if name == ".git" or (here / name / "meson-private").is_dir()}
