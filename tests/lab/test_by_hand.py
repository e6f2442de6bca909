"""The how-to's lines with mosquitto_pub and mosquitto_sub alone drive a real agent."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import msgspec

from qmp_client.lab import topics
from qmp_client.lab.wire import Outcome, Result, Status
from tests.lab.processes import AgentProcess, Broker, listening
from tests.waiting import PATIENCE

PAGE = Path(__file__).parent.parent.parent / "docs" / "lab" / "how-to.md"
LAB = "lab"


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run the lines; what they left in the background ends with them."""
    whole = f"{script}\nkill %1; wait"
    return subprocess.run(
        ["bash", "-m", "-c", whole], capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )


async def test_a_job_by_hand(broker: Broker, tmp_path: Path) -> None:
    found = re.search(r"```sh mosquitto\n(.*?)```", PAGE.read_text(), re.S)
    assert found is not None
    script = re.sub(r"(mosquitto_(?:pub|sub))", rf"\1 -p {broker.port}", found.group(1))
    # On a terminal both programs' output may mix; a reader of lines must not meet that.
    script = script.replace(" &\n", f" > {tmp_path}/replies &\n")
    agent = AgentProcess(broker, tmp_path, "emr-01", drift={"cpu": []})
    agent.options = ["--lab", LAB]
    agent.start()
    try:
        async with listening(broker.address, f"tdx-cpuid/{LAB}/hosts/+/status") as listener:
            await listener.message(topics.status(LAB, "emr-01"), Status, lambda said: said.state == "online")
        done = await asyncio.to_thread(run, script)
    finally:
        agent.kill()
    lines = done.stdout.splitlines()
    results = [msgspec.json.decode(line, type=Result) for line in lines if line.startswith("{")]
    assert [(result.job, result.outcome) for result in results] == [("by-hand-1", Outcome.MEASURED)], done.stderr
