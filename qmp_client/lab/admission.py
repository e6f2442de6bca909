"""Whether a payload is a job that this host runs. Pure: it starts nothing and touches no file."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from plugin.tdx_module.guests import UnknownGuest, find_guest
from qmp_client.lab import topics
from qmp_client.lab.config import Config
from qmp_client.lab.printable import printable
from qmp_client.lab.wire import JOB_LIMIT, RESPONSE_LIMIT, Boot, Job

_DECODER = msgspec.json.Decoder(Job)


class Refusal(ValueError):
    """The payload is not accepted; the text is the reason that its sender gets."""

    def __init__(self, reason: str, job: str = "") -> None:
        super().__init__(printable(reason))  # it quotes the payload, and goes to the log
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
    try:
        return _admitted(job, config)
    except Refusal as refusal:
        refusal.job = job.id
        raise


def _admitted(job: Job, config: Config) -> Job:
    if not config.allows_model(job.cpu):
        raise Refusal(_not_listed("CPU model", job.cpu.partition(",")[0], config.cpu_models))
    if job.vcpus > config.limits.max_vcpus:
        raise Refusal(f"{job.vcpus} vCPUs; this host runs at most {config.limits.max_vcpus}")
    if not config.simulated and (job.module or job.platform):
        raise Refusal("this host runs TDs on its own TDX module and processor; a job cannot choose others")
    try:
        find_guest(job.guest)
    except UnknownGuest as error:
        raise Refusal(str(error)) from error
    for name in job.options:
        if name not in config.options:
            raise Refusal(_not_listed("option", name, config.options))
    return msgspec.structs.replace(
        job,
        qemu=_chosen("QEMU", job.qemu, config.qemu),
        machine=_chosen("machine type", job.machine, config.machines),
        module=_chosen("TDX module", job.module, config.modules),
        platform=_chosen("platform", job.platform, config.platforms),
        boot=None if job.boot is None else _admitted_boot(job.boot, config),
    )


def _admitted_boot(boot: Boot, config: Config) -> Boot:
    if config.boot is None:
        raise Refusal("this host boots no guests: its configuration has no `[boot]`")
    if not boot.pattern and not boot.guest_agent:
        raise Refusal("what tells that the guest is up? a pattern for its console, its guest agent, or both")
    try:
        re.compile(boot.pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise Refusal(f"the pattern {boot.pattern!r} is no regular expression: {error}") from error
    if boot.seconds is not None and boot.seconds > config.boot.seconds:
        raise Refusal(f"{boot.seconds:g} s to boot; this host waits at most {config.boot.seconds:g}")
    return msgspec.structs.replace(
        boot,
        disk=_chosen("disk", boot.disk, config.boot.disks),
        seconds=config.boot.seconds if boot.seconds is None else boot.seconds,
    )


def check_reply(lab: str, response_topic: str | None, correlation: bytes | None, job: str) -> None:
    """Raise Refusal unless the answer may go where the message wants it."""
    if response_topic is not None and not topics.is_reply(lab, response_topic):
        raise Refusal(f"the response topic must be one below {topics.reply(lab, '')}", job)
    if correlation is not None and len(correlation) > RESPONSE_LIMIT:
        raise Refusal(f"{len(correlation)} bytes of correlation data; at most {RESPONSE_LIMIT} are kept", job)


def _chosen(what: str, name: str, names: Iterable[str]) -> str:
    """The name, or the first one of the list for none. Raises Refusal."""
    listed = tuple(names)
    if name and name not in listed:
        raise Refusal(_not_listed(what, name, listed))
    return name or next(iter(listed), "")


def _not_listed(what: str, name: str, listed: Iterable[str]) -> str:
    return f"the {what} {name} is not on this host's list: {', '.join(listed) or 'none'}"
