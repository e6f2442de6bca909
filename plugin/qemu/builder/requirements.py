"""What the machine must have to build QEMU, and the Debian packages that bring it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import NamedTuple

from plugin.qemu.trouble import Missing, Trouble, say


class Requirement(NamedTuple):
    """Something to be found, and the package it is in (Debian's and Ubuntu's name)."""

    kind: str  # "program", "pkg-config" or "python"
    name: str
    package: str


REQUIREMENTS = (
    Requirement("program", "cc", "gcc"),
    Requirement("header", "stdio.h", "libc6-dev"),
    Requirement("program", "make", "make"),
    Requirement("program", "ninja", "ninja-build"),
    Requirement("program", "patch", "patch"),
    Requirement("program", "pkg-config", "pkg-config"),
    Requirement("pkg-config", "glib-2.0", "libglib2.0-dev"),
    Requirement("pkg-config", "zlib", "zlib1g-dev"),
    Requirement("python", "ensurepip", "python3-venv"),
)

SOURCE_PACKAGE = (Requirement("program", "dpkg-source", "dpkg-dev"),)
"""Needed only where the source is the distribution's."""


def missing(requirements: tuple[Requirement, ...]) -> list[Requirement]:
    """Return what this machine lacks."""
    return [requirement for requirement in requirements if not _is_there(requirement)]


def _is_there(requirement: Requirement) -> bool:
    match requirement.kind:
        case "program":
            return shutil.which(requirement.name) is not None
        case "header":
            return _succeeds("cc", "-E", "-x", "c", "-include", requirement.name, os.devnull)
        case "pkg-config":
            return _succeeds("pkg-config", "--exists", requirement.name)
        case _:
            return _succeeds(sys.executable, "-c", f"import venv, {requirement.name}")


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def explain(lacking: list[Requirement]) -> str:
    """Say what is missing and the command that installs it."""
    names = ", ".join(requirement.name for requirement in lacking)
    packages = " ".join(dict.fromkeys(requirement.package for requirement in lacking))
    return (
        f"building QEMU needs what this machine lacks: {names}\n"
        f"    sudo apt-get install {packages}\n"
        "(or scripts/build-qemu --install-deps)"
    )


def install(lacking: list[Requirement]) -> None:
    """Install the packages, through sudo where we are not root. Raises Missing or Trouble."""
    packages = list(dict.fromkeys(requirement.package for requirement in lacking))
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    if shutil.which("apt-get") is None or (as_root and shutil.which("sudo") is None):
        raise Missing(explain(lacking))
    say(f"installing {' '.join(packages)}")
    apt_get = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    for step in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(
            [*apt_get, *step],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise Trouble(f"apt-get {step[0]} failed:\n{done.stdout}")
