"""`tdx-cpuid matrix` with the real QEMU on the simulated KVM."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import plugin.tdx_module
from qmp_client.matrix import journal
from tests.e2e.grid import ENTRY, run, running, wrapper
from tests.waiting import LONGER_AND_LONGER, PATIENCE, until

PLATFORMS = Path(plugin.tdx_module.__file__).parent / "data" / "platforms"
QUIET = ("--fail-on", "none")


@pytest.fixture
def base(qemu: Path, firmware: Path) -> list[str]:
    return ["matrix", "--qemu", str(qemu), "--firmware", str(firmware)]


def cells(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    results = [json.loads(line) for line in path.read_text().splitlines()]
    return {(result["cell"]["cpu"], result["cell"]["machine"]): result for result in results}


def test_two_machine_types(base: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    result = run(*base, "--cpu", "host", "--machine", "pc-q35-9.0", "--machine", "pc-q35-10.1", "--output", output)
    assert result.returncode == 0, result.stderr
    assert "2 cells: 2 as expected, 0 not, 0 failed" in result.stdout
    widths = {
        machine: next(e["eax"] >> 16 & 0xFF for e in found["report"]["actual"] if e["leaf"] == 0x80000008)
        for (_, machine), found in cells(output).items()
    }
    assert widths == {"pc-q35-9.0": 48, "pc-q35-10.1": 52}, "the guest address width came with pc-q35-9.1 and 10.1"


def test_a_cell_is_what_negotiate_says(base: list[str], qemu: Path, firmware: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    options = ["--cpu", "EPYC-Milan", "--machine", "pc-q35-10.1", "--smp", "2", "--platform", "granite-rapids"]
    options += ["--module", "1.5.05", "--choose", "maximal", *QUIET]
    run(*base, *options, "--output", output)
    alone = run("negotiate", "--qemu", qemu, "--firmware", firmware, *options, "--format", "json")
    assert next(iter(cells(output).values()))["report"] == json.loads(alone.stdout)


def test_every_axis_from_a_file(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(
        f'cpu = ["host", "SapphireRapids-v[12]"]\nmachine = ["pc-q35-9.*", "!*.0"]\nqemu = "{qemu}"\n'
        'platform = ["emerald-rapids", "granite-rapids"]\nkvm = "all"\nfail-on = "none"\n'
    )
    output = tmp_path / "out.jsonl"
    result = run("matrix", "--file", grid, "--cpu", "host", "--firmware", firmware, "--output", output)
    assert result.returncode == 0, result.stderr
    found = [one.cell for one in journal.read(output)]
    assert len(set(found)) == 1 * 2 * 2 * 2, "the option goes before the file's key"
    assert {cell.machine for cell in found} == {"pc-q35-9.1", "pc-q35-9.2"}
    for result_of in journal.read(output):
        assert result_of.report is not None
        assert result_of.report.environment.interface == result_of.cell.kvm
        assert result_of.report.environment.platform == result_of.cell.platform


def test_failing_cells_do_not_stop_the_rest(qemu: Path, firmware: Path, tmp_path: Path) -> None:
    wrong = wrapper(
        tmp_path,
        qemu,
        "has 'cpu Nehalem' && kill -SEGV $$\nhas 'cpu Penryn' && { echo 'qemu-system-x: too bad' >&2; exit 7; }\n"
        "has 'cpu Conroe' && exec sleep 1000",
    )
    output, junit, markdown = tmp_path / "out.jsonl", tmp_path / "out.xml", tmp_path / "out.md"
    html = tmp_path / "out.html"
    models = ["Nehalem", "Penryn", "Conroe", "NoSuchModel", "486", "EPYC"]
    for seconds in LONGER_AND_LONGER:
        output.unlink(missing_ok=True)
        result = run(
            *("matrix", "--qemu", wrong, "--firmware", firmware, "--timeout", str(seconds), *QUIET, "--output", output),
            *("--junit", junit, "--markdown", markdown, "--html", html),
            *(word for model in models for word in ("--cpu", model)),
        )
        assert result.returncode == 4, result.stderr
        found = {cpu: one for (cpu, _), one in cells(output).items()}
        if sum(f"within {seconds} s" in (one["error"] or "") for one in found.values()) == 1:
            break
    assert found["EPYC"]["report"] is not None
    assert found["EPYC"]["exit-code"] == 0
    for model, said in {
        "Nehalem": "SIGSEGV",
        "Penryn": "too bad",
        "Conroe": f"within {seconds} s",
        "NoSuchModel": "no CPU model NoSuchModel",
        "486": "physical bits",
    }.items():
        assert said in found[model]["error"]
        assert f"failed: {model}" in result.stderr
        assert model in markdown.read_text()
        assert model in html.read_text()
    assert "6 cells: 1 as expected, 0 not, 5 failed" in result.stdout
    assert ElementTree.parse(junit).getroot().get("errors") == "5"
    until(lambda: running(str(wrong)) == [], "no process is left")


def test_a_known_cell_is_not_run_again(base: list[str], qemu: Path, firmware: Path, tmp_path: Path) -> None:
    own = tmp_path / "qemu"
    own.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/starts\nexec {qemu} "$@"\n')
    own.chmod(0o755)
    output, starts = tmp_path / "out.jsonl", tmp_path / "starts"
    options: list[str | Path] = ["matrix", "--qemu", own, "--firmware", firmware, "--output", output]
    options += ["--cpu", "host", "--cpu", "486"]
    assert run(*options, *QUIET).returncode == 4
    assert len(starts.read_text().splitlines()) == 2
    again = run(*options, *QUIET)
    assert "2 cells, 1 of them known already" in again.stderr
    assert len(starts.read_text().splitlines()) == 3, "what failed is tried again"
    strict = run(*options, "--fail-on", "lost")
    assert "0 as expected, 1 not, 1 failed" in strict.stdout, "what is known is judged by today's policy"
    with own.open("a") as file:
        file.write("# another build\n")
    run(*options, *QUIET)
    assert len(starts.read_text().splitlines()) == 6, "another QEMU has other results"


def start(base: list[str], tmp_path: Path, output: Path) -> tuple[subprocess.Popen[str], str]:
    """A run of which three cells are done and no more, until there is a file `go`.

    It has a firmware of its own, by whose path its processes can be told.
    """
    qemu = Path(base[base.index("--qemu") + 1])
    three = f'for n in 1 2 3; do mkdir {tmp_path}/cell-$n 2>/dev/null && exec {qemu} "$@"; done'
    patient = wrapper(tmp_path, qemu, f"has id=qmp && {{ {three}; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; }}")
    base = [str(patient) if word == str(qemu) else word for word in base]
    marker = str(tmp_path / "own-firmware.fd")
    shutil.copy(base[-1], marker)
    command = [
        *ENTRY,
        *base[:-1],
        marker,
        *QUIET,
        "--timeout",
        str(PATIENCE),
        "--cpu",
        "*Rapids*",
        "--machine",
        "pc-q35-10.*",
        "--output",
        str(output),
    ]
    root = str(Path(__file__).parent.parent.parent)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}
    )

    def has_begun() -> bool:
        return process.poll() is not None or (output.exists() and output.read_bytes().count(b"\n") >= 3)

    until(has_begun, "three cells are done")
    return process, marker


def test_ctrl_c_leaves_nothing_and_the_run_goes_on(base: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    process, marker = start(base, tmp_path, output)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, complaints
    assert "goes on from" in complaints
    assert "Traceback" not in complaints
    until(lambda: running(marker) == [], "no process is left")
    before = journal.read(output)
    (tmp_path / "go").touch()
    again = run(*process.args[3:])  # type: ignore[index]  # a list, as it was given
    assert again.returncode == 0, again.stderr
    assert f"{len(before)} of them known already" in again.stderr
    keys = [result.inputs for result in journal.read(output)]
    assert len(keys) == len(set(keys)) > len(before) >= 3


def test_a_killed_run_leaves_no_process(base: list[str], tmp_path: Path) -> None:
    process, marker = start(base, tmp_path, tmp_path / "out.jsonl")
    process.kill()
    process.communicate(timeout=PATIENCE)
    until(lambda: running(marker) == [], "no process is left")
    assert journal.read(tmp_path / "out.jsonl")


def test_a_worker_that_is_killed_costs_one_cell(base: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    process, _ = start([*base[:1], "--jobs", "1", *base[1:]], tmp_path, output)
    worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    os.kill(int(worker), signal.SIGKILL)
    (tmp_path / "go").touch()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 4
    failed = [result for result in journal.read(output) if result.report is None]
    assert [result.error for result in failed] == ["the process that ran this cell was killed by SIGKILL"]


def test_a_processor_that_the_module_refuses_is_a_failed_cell(base: list[str], tmp_path: Path) -> None:
    platform = tmp_path / "amd.json"
    data = json.loads((PLATFORMS / "emerald-rapids.json").read_text())
    data["cpuid"]["0x0"] = "00000020 68747541 444d4163 69746e65"
    platform.write_text(json.dumps(data))
    result = run(*base, "--platform", platform, "--platform", "emerald-rapids", *QUIET)
    assert "2 cells: 1 as expected, 0 not, 1 failed" in result.stdout, result.stderr
    assert result.returncode == 4


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--cpu", "Sapphir_*"], 2, "matches nothing"),
        (["--module", "1.5.5"], 2, "1.5.05"),
        (["--platform", "emerald"], 2, "emerald-rapids"),
        (["--kvm", "upsteam"], 2, "upstream"),
        (["--choose", "maximum"], 2, "maximal"),
        (["--fail-on", "forced"], 2, "forced-o"),
        (["--file", "/nonexistent.toml"], 2, "cannot be read"),
        (["--junit", "/nonexistent/x.xml"], 2, "no folder"),
        (["--output", "/dev/full"], 2, "is no file"),
        (["--qemu", "/nonexistent/qemu"], 2, "not a program"),
        (["--firmware", "/nonexistent.fd"], 3, "get-firmware"),
        (["--qemu", "/bin/true", "--machine", "all"], 4, "does not say which machine types"),
    ],
)
def test_bad_input_is_found_before_anything_runs(base: list[str], options: list[str], code: int, said: str) -> None:
    result = run(*base, *options) if "--qemu" not in options else run("matrix", *options)
    assert result.returncode == code, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert "cells" not in result.stderr


def test_an_output_that_is_another_file_is_kept(base: list[str], tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine\n")
    result = run(*base, "--output", notes)
    assert result.returncode == 2
    assert notes.read_text() == "mine\n"


def test_one_report_that_cannot_be_written_costs_no_other(base: list[str], tmp_path: Path) -> None:
    html = tmp_path / "out.html"
    result = run(*base, *QUIET, "--junit", "/dev/full", "--html", html)
    assert result.returncode == 2
    assert "/dev/full cannot be written: No space left on device" in result.stderr
    assert "1 cell: 1 as expected" in result.stdout
    assert html.exists()
