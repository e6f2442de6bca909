"""What Prometheus reads from a real agent, and that the dashboard asks for nothing else."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from qmp_client.lab import topics
from qmp_client.lab.wire import Job, Rejection, Result, Status
from tests.lab.conftest import Start
from tests.lab.processes import LAB, Broker, free_port, listening
from tests.waiting import PATIENCE

DASHBOARD = Path(__file__).parent.parent.parent / "docs" / "examples" / "lab" / "grafana.json"


def read(port: int) -> dict[str, float]:
    """Each sample's name, with the outcome if it has one, and its value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {"/".join((one.name, *filter(None, [one.labels.get("outcome")]))): one.value for one in samples}


async def test_an_agent_counts(broker: Broker, agent: Start) -> None:
    port = free_port()
    alpha = agent(metrics={"listen": f"127.0.0.1:{port}"}, **{"cpu-models": ["*"]})
    async with listening(broker.address) as listener:
        await listener.message(topics.status(LAB, "alpha"), Status, lambda said: said.state == "online")
        for job in (Job(id="one"), Job(id="two", cpu="hots")):
            await listener.submit(job)
            await listener.message(topics.result(LAB, job.id), Result)
        await listener.submit(b"{}")
        await listener.message(topics.rejected(LAB, "alpha"), Rejection)
    found = await asyncio.to_thread(read, port)
    assert found["tdx_cpuid_jobs_total/measured"] == found["tdx_cpuid_jobs_total/failed"] == 1
    assert (found["tdx_cpuid_jobs_accepted_total"], found["tdx_cpuid_jobs_rejected_total"]) == (2, 1)
    assert (found["tdx_cpuid_jobs_unfinished"], found["tdx_cpuid_jobs_running"]) == (0, 0)
    assert (found["tdx_cpuid_broker_connected"], found["tdx_cpuid_job_seconds_count"]) == (1, 2)
    asked = set(re.findall(r"tdx_cpuid_\w+", " ".join(_queries())))
    assert asked <= {name.partition("/")[0] for name in found}
    assert len(asked) == 9
    await asyncio.to_thread(alpha.kill)
    alpha.start()
    async with listening(broker.address) as listener:
        await listener.message(topics.status(LAB, "alpha"), Status, lambda said: said.state == "online")
    again = await asyncio.to_thread(read, port)
    assert again["tdx_cpuid_jobs_accepted_total"] == 2, "what is stored survives"


def _queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_an_address_that_is_taken_ends_the_agent(broker: Broker, agent: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        alpha = agent(metrics={"listen": f"127.0.0.1:{taken.getsockname()[1]}"})
        assert alpha.wait() == 2
    assert "metrics.listen" in alpha.log
    assert "Traceback" not in alpha.log
