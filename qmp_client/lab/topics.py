"""Where things are published: one function a topic. ``+`` in place of a name makes the filter for all of them."""

from __future__ import annotations

ROOT = "tdx-cpuid"
EVERY = "+"


def jobs(lab: str, pool: str) -> str:
    """Jobs for whichever agent of the pool is free. Agents subscribe to it as ``shared``."""
    return f"{ROOT}/{lab}/jobs/{pool}"


def shared_jobs(lab: str, pool: str) -> str:
    """The MQTT 5 shared subscription through which the broker spreads a pool's jobs."""
    return f"$share/{pool}/{jobs(lab, pool)}"


def host_jobs(lab: str, host: str) -> str:
    """Jobs for one host."""
    return f"{_host(lab, host)}/jobs"


def status(lab: str, host: str) -> str:
    """Whether the host's agent is there (retained; the broker publishes the last will when it vanishes)."""
    return f"{_host(lab, host)}/status"


def capabilities(lab: str, host: str) -> str:
    """What the agent's configuration lets a job choose (retained)."""
    return f"{_host(lab, host)}/capabilities"


def drain(lab: str, host: str) -> str:
    """Whether the host shall take no more jobs of its pool (retained, published by an operator)."""
    return f"{_host(lab, host)}/drain"


def delivered(lab: str, host: str) -> str:
    """The agent's own note of what the broker has taken (retained): a broker that lost its memory lost it too."""
    return f"{_host(lab, host)}/delivered"


def rejected(lab: str, host: str) -> str:
    """Jobs that the host's agent did not accept, with the reason."""
    return f"{_host(lab, host)}/rejected"


def progress(lab: str, job: str) -> str:
    """How far a job is."""
    return f"{ROOT}/{lab}/progress/{job}"


def result(lab: str, job: str) -> str:
    """What became of a job (retained until it expires)."""
    return f"{ROOT}/{lab}/results/{job}"


def drift(lab: str) -> str:
    """Guests of some host see another CPUID than before."""
    return f"{ROOT}/{lab}/events/drift"


def reply(lab: str, client: str) -> str:
    """A response topic. Agents publish answers under this prefix and nowhere else that a job names."""
    return f"{ROOT}/{lab}/replies/{client}"


def is_reply(lab: str, topic: str) -> bool:
    """Whether an agent may answer there."""
    prefix = reply(lab, "")
    return topic.startswith(prefix) and len(prefix) < len(topic) <= 256 and not set("+#\0") & set(topic)


def _host(lab: str, host: str) -> str:
    return f"{ROOT}/{lab}/hosts/{host}"
