"""``--choose FILE``: exactly these entries, as JSON.

The form is that of a report's ``choice``, and a whole saved report is taken as well. Numbers may be written as
strings, so that masks can be in hexadecimal: ``{"cpuid": [{"leaf": "0x7", "subleaf": 0, "ebx": "0x20"}]}``.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from plugin.cpuid import Leaf, Registers
from qmp_client import given
from qmp_client.errors import UsageError


class FileEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One leaf of the file; registers that are left out are 0."""

    leaf: int | str
    subleaf: int | str | None = None
    eax: int | str = 0
    ebx: int | str = 0
    ecx: int | str = 0
    edx: int | str = 0


class ChoiceFile(msgspec.Struct, forbid_unknown_fields=True):
    """The file: CPUID entries, and 64-bit ATTRIBUTES and XFAM unless they follow from the model."""

    cpuid: list[FileEntry]
    attributes: int | str | None = None
    xfam: int | str | None = None

    @property
    def attributes_value(self) -> int | None:
        """ATTRIBUTES, if the file has them."""
        return None if self.attributes is None else number(self.attributes, 64)

    @property
    def xfam_value(self) -> int | None:
        """XFAM, if the file has it."""
        return None if self.xfam is None else number(self.xfam, 64)

    def leaves(self) -> dict[Leaf, Registers]:
        """The entries in the project's vocabulary."""
        return {
            Leaf(number(e.leaf), None if e.subleaf is None else number(e.subleaf)): Registers(
                number(e.eax), number(e.ebx), number(e.ecx), number(e.edx)
            )
            for e in self.cpuid
        }


def read(path: Path) -> ChoiceFile:
    """Read a choice. Raises UsageError, naming the place, when the file is not one."""
    content = given.json("the choice", path, "a choice of CPUID bits")
    try:
        if isinstance(content, dict) and "choice" in content:
            content = content["choice"]
        choice = msgspec.convert(content, ChoiceFile)
        leaves, _, _ = choice.leaves(), choice.attributes_value, choice.xfam_value
    except (msgspec.MsgspecError, ValueError) as error:
        raise UsageError(f"{path} is not a choice of CPUID bits: {error}") from error
    if len(leaves) != len(choice.cpuid):
        raise UsageError(f"{path} names a leaf twice")
    return choice


def number(value: int | str, bits: int = 32) -> int:
    """A number as JSON or the command line has it, in any base. Raises ValueError when it does not fit."""
    try:
        result = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{value!r} is no number") from None
    if not 0 <= result < 1 << bits:
        raise ValueError(f"{value} does not fit {bits} bits")
    return result
