"""One point of the grid: what `predict` says and what a real `negotiate` run says, compared.

Run as a program it walks the whole grid: python -m tests.e2e.prediction [MODULE...]
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from plugin.qemu.request.models import model_names
from plugin.tdx_module import load_host, module_names, platform_names
from qmp_client.errors import TdxCpuidError
from qmp_client.negotiation.run import negotiate
from qmp_client.negotiation.setup import Setup, start
from qmp_client.negotiation.understand import understand
from qmp_client.predict.predict import predict
from qmp_client.qemu import firmware as tdvf
from qmp_client.qemu.command_line import Machine
from qmp_client.qemu.locate import find_qemu
from qmp_client.qemu.spawn import Simulation
from qmp_client.report.model import Report


class Point(NamedTuple):
    """What is varied."""

    cpu: str
    smp: str = "1"
    module: str = "1.5.05"
    platform: str = "emerald-rapids"
    choose: str = "model"
    attributes: str | None = None
    xfam: str | None = None


class Refusal(NamedTuple):
    """A command that failed: its exit code and what it said."""

    exit_code: int
    said: str


def real(point: Point, qemu: Path, firmware: Path) -> Report | Refusal:
    """What a real QEMU comes to."""
    machine = Machine(qemu, firmware, point.cpu, point.smp)
    simulation = Simulation(load_host(point.module, point.platform))
    try:
        setup = Setup(machine, simulation, understand(point.choose, point.attributes, point.xfam), 60)
        return asyncio.run(negotiate(start(setup), setup))
    except TdxCpuidError as error:
        return Refusal(error.exit_code, str(error))


def predicted(point: Point) -> Report | Refusal:
    """What `predict` says."""
    try:
        wish = understand(point.choose, point.attributes, point.xfam)
        return predict(point.cpu, point.smp, wish, load_host(point.module, point.platform))
    except TdxCpuidError as error:
        return Refusal(error.exit_code, str(error))


def as_data(result: Report | Refusal) -> dict[str, Any]:
    """A report without what says where it comes from; of a refusal, that it is one."""
    if isinstance(result, Refusal):
        return {"refused": result.exit_code}
    data: dict[str, Any] = msgspec.to_builtins(result)
    del data["environment"]["qemu"], data["environment"]["qemu-version"]
    return data


def differences(point: Point, qemu: Path, firmware: Path) -> list[str]:
    """What is predicted otherwise than it is; in lists, only the first thing."""
    ours, theirs = predicted(point), real(point, qemu, firmware)
    if as_data(ours) == as_data(theirs):
        return []
    if isinstance(ours, Refusal) or isinstance(theirs, Refusal):
        return [f"predicted {_briefly(ours)}, but it is {_briefly(theirs)}"]
    found = []
    for key, value in as_data(ours).items():
        other = as_data(theirs)[key]
        if value != other and isinstance(value, list):
            pairs = (pair for pair in itertools.zip_longest(value, other) if pair[0] != pair[1])
            value, other = next(pairs)  # noqa: PLW2901
        if value != other:
            found.append(f"{key}: predicted {value}, but it is {other}")
    return found


def _briefly(result: Report | Refusal) -> str:
    return f"{result}" if isinstance(result, Refusal) else "a report"


def main(modules: list[str]) -> int:
    """Walk the grid of modules, platforms and models; print what differs. The exit status says whether anything did."""
    qemu, firmware = find_qemu(None), tdvf.default()
    walked = wrong = refused = 0
    for module, platform, cpu in itertools.product(modules or module_names(), platform_names(), model_names()):
        point = Point(cpu, module=module, platform=platform)
        found = differences(point, qemu, firmware)
        walked, wrong = walked + 1, wrong + bool(found)
        refused += isinstance(predicted(point), Refusal)
        for sentence in found:
            print(f"{module} {platform} {cpu}: {sentence}", flush=True)
    print(f"{walked} compared, {wrong} differ, {refused} refused by both")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
