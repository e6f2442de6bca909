"""Results as a matrix has them, made without QEMU."""

from __future__ import annotations

from qmp_client.matrix.result import Cell, Result
from qmp_client.reconcile.reconcile import count
from qmp_client.reconcile.verdict import Line, Verdict
from qmp_client.report import model


def cell(cpu: str = "host", machine: str = "q35", qemu: str = "/usr/bin/qemu-system-x86_64") -> Cell:
    return Cell(cpu=cpu, machine=machine, module="1.5.05", platform="emerald-rapids", qemu=qemu)


def line(name: str, bit: int, verdict: Verdict = Verdict.FORCED_OFF) -> Line:
    return Line(
        leaf=7,
        subleaf=0,
        register="ebx",
        low=bit,
        high=bit,
        name=name,
        asked=1,
        chosen=1,
        got=0 if verdict is Verdict.FORCED_OFF else 1,
        verdict=verdict,
        cause="fixed-0",
    )


def report(lines: list[Line]) -> model.Report:
    return model.Report(
        request=model.Request("host", "1", "q35", "model"),
        environment=model.Environment("/usr/bin/qemu-system-x86_64", "10.2.2", "simulated", "upstream"),
        configurable=[],
        choice=model.Choice(0, 7, []),
        vcpus=1,
        summary=count(lines),
        lines=lines,
    )


def good(of: Cell, *lines: Line) -> Result:
    failing = any(one.deviates for one in lines)
    return Result(of, 0.1, report(list(lines)), None, int(failing), inputs=f"{of.cpu} {of.machine}")


def bad(of: Cell, error: str = "QEMU exited with status 1: no") -> Result:
    return Result(of, 0.1, None, error, 4, inputs=f"{of.cpu} {of.machine}")
