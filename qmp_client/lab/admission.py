"""Whether a payload is a job that this host runs. Pure: it starts nothing and touches no file."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from qmp_client.lab import topics
from qmp_client.lab.config import Config
from qmp_client.lab.wire import JOB_LIMIT, RESPONSE_LIMIT, Job

_DECODER = msgspec.json.Decoder(Job)


class Refusal(ValueError):
    """The payload is not accepted; the text is the reason that its sender gets."""

    def __init__(self, reason: str, job: str = "") -> None:
        super().__init__(reason)
        self.job = job
        """The job's id, where it could be read."""


def admit(payload: bytes, config: Config) -> Job:
    """The job, with what it left open filled in from the configuration. Raises Refusal."""
    if len(payload) > JOB_LIMIT:
        raise Refusal(f"the job has {len(payload)} bytes; at most {JOB_LIMIT} are looked at")
    try:
        job = _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(f"not a job: {error}") from error
    if not config.allows_model(job.cpu):
        raise Refusal(_not_listed("CPU model", job.cpu.partition(",")[0], config.cpu_models), job.id)
    if job.vcpus > config.limits.max_vcpus:
        raise Refusal(f"{job.vcpus} vCPUs; this host runs at most {config.limits.max_vcpus}", job.id)
    if not config.simulated and (job.module or job.platform):
        raise Refusal("this host runs TDs on its own TDX module and processor; a job cannot choose others", job.id)

    for name in job.options:
        if name not in config.options:
            raise Refusal(_not_listed("option", name, config.options), job.id)

    def chosen(what: str, name: str, names: Iterable[str]) -> str:
        listed = tuple(names)
        if name and name not in listed:
            raise Refusal(_not_listed(what, name, listed), job.id)
        return name or next(iter(listed), "")

    return msgspec.structs.replace(
        job,
        qemu=chosen("QEMU", job.qemu, config.qemu),
        machine=chosen("machine type", job.machine, config.machines),
        module=chosen("TDX module", job.module, config.modules),
        platform=chosen("platform", job.platform, config.platforms),
    )


def check_reply(lab: str, response_topic: str | None, correlation: bytes | None, job: str) -> None:
    """Raise Refusal unless the answer may go where the message wants it."""
    if response_topic is not None and not topics.is_reply(lab, response_topic):
        raise Refusal(f"the response topic must be one below {topics.reply(lab, '')}", job)
    if correlation is not None and len(correlation) > RESPONSE_LIMIT:
        raise Refusal(f"{len(correlation)} bytes of correlation data; at most {RESPONSE_LIMIT} are kept", job)


def _not_listed(what: str, name: str, listed: Iterable[str]) -> str:
    return f"the {what} {name} is not on this host's list: {', '.join(listed) or 'none'}"
