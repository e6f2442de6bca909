"""From a QEMU command line that the user has to one that can be run here: its program, firmware and files are found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qmp_client import given
from qmp_client.qemu import firmware, locate
from qmp_client.qemu.own_command_line import OwnCommandLine, adapt, config_files, names_firmware


def adopt(words: Sequence[str], firmware_file: Path | None, *, patched: bool) -> OwnCommandLine:
    """Take the command line over.

    Raises UsageError for one that builds no TD, and for files that cannot be read; MissingError without firmware.
    """
    image = (firmware_file or firmware.default()) if names_firmware(words) else firmware.find_firmware(firmware_file)
    configs = {path: given.text("-readconfig", Path(path), "QEMU configuration") for path in config_files(words)}
    return adapt(words, locate.find_qemu(words[0]), image, patched=patched, configs=configs)
