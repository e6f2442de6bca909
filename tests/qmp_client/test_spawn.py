"""What a started QEMU leaves with us: its complaints, however many."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qmp_client.qemu.process import watching
from qmp_client.qemu.spawn import MOST_COMPLAINTS, spawn
from tests.waiting import PATIENCE

FLOOD = """
import os
written = 0
try:
    while written < 1 << 30:
        written += os.write(2, b"no end of it\\n" * 1000)
except PermissionError:
    os._exit(7)
"""


def command(program: str) -> Sequence[str]:
    return [sys.executable, "-c", program]


async def test_standard_error_is_kept_up_to_its_bound() -> None:
    async with watching(spawn(lambda _: command(FLOOD), None)) as process:
        assert await process.ended(PATIENCE)
        assert process.exit_code == 7, "it was told that there is no room"
        assert process.complaints()[-2] == "no end of it"
        assert len("\n".join(process.complaints())) == 1 << 16 < MOST_COMPLAINTS


async def test_few_complaints_are_all_that_was_written() -> None:
    async with watching(spawn(lambda _: command("import os; os.write(2, b'one\\ntwo\\n')"), None)) as process:
        assert await process.ended(PATIENCE)
        assert process.complaints() == ["one", "two"]
