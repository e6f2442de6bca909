"""What would make every job of an agent fail, found when it starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from qmp_client.errors import MissingError, UsageError
from qmp_client.lab.config import Config
from qmp_client.names import a_module, a_platform
from qmp_client.qemu import firmware, tdx_host


def check_host(config: Config, config_file: Path) -> None:
    """Raise UsageError for what ``config_file`` names and this host has not, MissingError where it has no TDX."""
    for name, path in config.qemu.items():
        if shutil.which(path) is None:
            raise UsageError(f"{config_file}: `qemu.{name}`: {path} is not a program that can be run")
    firmware.check(Path(config.firmware))
    for name, path in config.boot.disks.items() if config.boot else ():
        if not os.access(path, os.R_OK) or not Path(path).is_file():
            raise UsageError(f"{config_file}: `boot.disks.{name}`: {path} is not a file that can be read")
    for module in config.modules:
        a_module(module)
    for platform in config.platforms:
        a_platform(platform)
    if not config.simulated and (lacking := tdx_host.what_is_missing()):
        raise MissingError(
            f"this host has no TDX: {lacking}", hint=f"`modules` and `platforms` in {config_file} simulate one"
        )
