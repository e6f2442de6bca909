"""What a ``-readconfig`` file says, as the options that would say the same on the command line. Pure.

The format is QEMU's own (``qemu_config_foreach``, ``util/qemu-config.c``): ``[group "id"]``, then ``key = "value"``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

GROUP = re.compile(r'\[([^\s"\]]+)(?: "([^"]*)")?\]')
KEY = re.compile(r'([^\s=]+)\s*=\s*"([^"]*)"')
OPTIONS = {"smp-opts": "smp", "memory": "m"}
"""Groups that are called otherwise on the command line."""


def options(text: str) -> Iterator[tuple[str, str]]:
    """Each group as an option's name and value; a line that QEMU would not take is QEMU's to complain about."""
    group = ""
    said: list[str] = []
    for line in (*text.splitlines(), "[end]"):
        if found := GROUP.match(line.strip()):
            if group:
                yield OPTIONS.get(group, group), ",".join(said)
            group, identity = found[1], found[2]
            said = [f"id={_escaped(identity)}"] if identity else []
        elif found := KEY.match(line.strip()):
            said.append(f"{found[1]}={_escaped(found[2])}")


def _escaped(value: str) -> str:
    return value.replace(",", ",,")
