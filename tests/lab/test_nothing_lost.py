"""Whoever is killed whenever: each accepted job ends in one stored result, and a subscriber gets just that one."""

from __future__ import annotations

import random
from pathlib import Path

from tests.lab.torture import Torture


async def test_nothing_is_lost_when_agent_and_broker_are_killed(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}: scripts/lab-torture 10 {seed}")
    assert await Torture(tmp_path, kills=10, jobs=8, seed=seed).run() == []
