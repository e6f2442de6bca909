"""From what a user asks of a lab to jobs: each cell of a grid is a job of its own, so that the broker spreads them.

Pure. A name that is left out is chosen by the host, as the first one of its list.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import msgspec

from plugin.tdx_module.guests import DEFAULT_GUEST
from qmp_client.errors import UsageError
from qmp_client.lab.wire import Boot, Job, Outcome, Result
from qmp_client.matrix import result as matrix
from qmp_client.matrix.grid import is_pattern
from qmp_client.report.policy import Criteria

DEFAULT = "default"
"""What a table has for a name that the job left to the host, which has not told."""
AXES = {"module": "module", "platform": "platform", "qemu": "qemu", "smp": "vcpus", "cpu": "cpu", "machine": "machine"}
"""The axes of a grid, and the field of a job that each one is."""


def jobs(
    axes: Mapping[str, tuple[str, ...]],
    choose: str,
    name: str,
    options: tuple[str, ...] = (),
    boot: Boot | None = None,
    seen_by: str = DEFAULT_GUEST,
) -> list[Job]:
    """The jobs of a grid: one is called ``name``, several ``name-1``, ``name-2`` and so on.

    All have the options, and boot the same guest; ``seen_by`` executes CPUID in them.

    Raises UsageError for an axis that a lab has not, a pattern, and what the schema of a job does not allow.
    """
    unknown = sorted(axis for axis, words in axes.items() if words and axis not in AXES)
    if unknown:
        raise UsageError(f"a job has no {unknown[0]}", hint=f"it has {', '.join(AXES)}")
    for axis, words in axes.items():
        if found := [word for word in words if is_pattern(word)]:
            raise UsageError(
                f"--{axis} {found[0]}: only a host knows what it has, so a job names one thing",
                hint="`tdx-cpuid watch --once --format json` shows what each host's jobs may choose",
            )
    guest = msgspec.to_builtins(boot)  # so that it is checked with the rest
    given = {AXES[axis]: tuple(dict.fromkeys(words)) for axis, words in axes.items() if words}
    cells = [dict(zip(given, words, strict=True)) for words in product(*given.values())]
    ids = [name] if len(cells) == 1 else [f"{name}-{number}" for number in range(1, len(cells) + 1)]
    return [
        _job({"id": job, "choose": choose, "options": options, "boot": guest, "guest": seen_by, **cell})
        for job, cell in zip(ids, cells, strict=True)
    ]


def _job(fields: Mapping[str, object]) -> Job:
    try:
        return msgspec.convert(fields, Job, strict=False)
    except msgspec.ValidationError as error:
        if str(error).endswith("`$.cpu`"):
            raise UsageError(
                f"--cpu {fields['cpu']}: a lab takes a model, then features as in `,+avx` `,-avx` or `,avx=off`"
            ) from error
        raise UsageError(f"no job can be made of this: {error}") from error


def as_cell(job: Job | None, ended: Result, criteria: Criteria) -> matrix.Result:
    """What became of a job, as the cell of a matrix: for the same tables, pages and exit statuses."""
    report = ended.report
    if report is None or ended.outcome is Outcome.FAILED:
        asked = job or Job(id=ended.job)
        machine, module = asked.machine or DEFAULT, asked.module or DEFAULT
        platform, qemu = asked.platform or DEFAULT, asked.qemu or DEFAULT
        cell = matrix.Cell(asked.cpu, machine, module, platform, qemu, str(asked.vcpus))
        return matrix.Result(cell, ended.seconds, None, f"{ended.host}: {ended.reason}", 4)
    had = report.environment
    cell = matrix.Cell(
        report.request.cpu,
        report.request.machine,
        had.module or "",
        had.platform or ended.host,
        job.qemu if job else had.qemu,
        report.request.smp,
        had.interface,
    )
    return matrix.Result(cell, ended.seconds, report, None, criteria.exit_code(report.lines))
