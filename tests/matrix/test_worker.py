"""A machine that has no further process for a cell, or for its QEMU."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from plugin.tdx_module.guests import LINUX
from qmp_client.errors import QemuError, TdxCpuidError
from qmp_client.matrix.worker import Work, start
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu.spawn import spawn
from qmp_client.report.policy import Policy


@pytest.fixture(autouse=True)
def no_further_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208  these are links that come and go


def test_no_worker() -> None:
    before = descriptors()
    work = Work([], {}, [], Path("/none.fd"), Wish(), LINUX, Policy(frozenset(), frozenset(), enforced=False), 1)
    with pytest.raises(TdxCpuidError, match="no process for the cells could be started: Resource temporarily"):
        start(work, [])
    assert descriptors() == before


def test_no_qemu() -> None:
    before = descriptors()
    with pytest.raises(QemuError, match="no process for QEMU could be started: Resource temporarily") as raised:
        spawn(lambda _: ["qemu"], None)
    assert "ulimit" in raised.value.hint
    assert descriptors() == before
