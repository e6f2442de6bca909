"""A broker for each test, and agents that are gone at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.processes import AgentProcess, Broker, PatientQemu

Start = Callable[..., AgentProcess]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    one = Broker(tmp_path)
    one.start()
    yield one
    one.kill()


@pytest.fixture
def patient_qemu(tmp_path: Path) -> PatientQemu:
    return PatientQemu(tmp_path)


@pytest.fixture
def agent(broker: Broker, tmp_path: Path) -> Iterator[Start]:
    """Start an agent; its log is printed when the test ends."""
    started: list[AgentProcess] = []

    def start(host: str = "alpha", **config: Any) -> AgentProcess:
        one = AgentProcess(broker, tmp_path, host, **{"drift": {"cpu": []}, **config})
        one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()
        print(f"--- {one.host}\n{one.log}")
