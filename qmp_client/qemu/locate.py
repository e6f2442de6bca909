"""Which QEMU to run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from qmp_client.errors import MissingError, UsageError
from qmp_client.qemu.firmware import cache_folder

BINARY = "qemu-system-x86_64"
VARIABLE = "TDX_CPUID_QEMU"


def find_qemu(given: str | None) -> Path:
    """The binary that the user named, else $TDX_CPUID_QEMU, else the one that scripts/build-qemu built last.

    Raises UsageError when what the user named cannot be run, MissingError when there is none at all.
    """
    named = given or os.environ.get(VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise UsageError(
                f"{named} is not a program that can be run",
                hint="name a QEMU binary" + ("" if given else f" in ${VARIABLE}"),
            )
        return Path(found).absolute()  # Path drops "./", and exec would look in PATH then
    built = cache_folder() / "qemu" / "current" / "bin" / BINARY
    if not os.access(built, os.X_OK):
        stock = shutil.which(BINARY)
        own = (
            f"--qemu {stock} takes the stock one, with which less can be seen"
            if stock
            else "--qemu PATH names your own"
        )
        raise MissingError(
            "there is no patched QEMU on this machine yet",
            hint=f"scripts/build-qemu builds one in a few minutes; {own}",
        )
    return built
