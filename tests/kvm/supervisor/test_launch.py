"""supervise(), as another program uses it: forked, with the record in a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

CHILD = """
import os, signal, sys
from plugin.kvm.launch import supervise
from plugin.tdx_module import load_host
record, stop = int(sys.argv[1]), int(sys.argv[2])
sys.exit(supervise(lambda: load_host("1.5.01", "sapphire-rapids"), sys.argv[3:], record_fd=record, stop_fd=stop))
"""


def supervised(code: str, stop: int, record: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CHILD, str(record), str(stop), sys.executable, "-c", code]
    return subprocess.Popen(argv, pass_fds=(record, stop), stdout=subprocess.PIPE, text=True)


def test_the_record_on_request_and_at_the_end() -> None:
    record = os.memfd_create("record")
    stop, held = os.pipe()
    code = "import os; os.open('/dev/kvm', 2); os.kill(os.getppid(), 10); os.kill(os.getpid(), 9)"
    process = supervised(code, stop, record)
    assert process.wait(PATIENCE) == 128 + signal.SIGKILL
    content = json.loads(os.pread(record, 1 << 20, 0))
    assert content["command"]["signal"] == signal.SIGKILL
    assert (content["module"], content["platform"], content["tds"]) == ("1.5.01", "sapphire-rapids", [])
    assert content["cpuid"]["active"]
    for descriptor in (record, stop, held):
        os.close(descriptor)


UNNAMED = """
import sys
from plugin.kvm.launch import supervise
from plugin.tdx_module import Platform, load_module, load_platform, tdx_host
known = load_platform("granite-rapids")
host = tdx_host(load_module("1.5.05"), Platform("of no file", "", known.native, tsx_ctrl=True))
sys.exit(supervise(lambda: host, sys.argv[2:], record_fd=int(sys.argv[1])))
"""


def test_a_host_that_no_name_loads_is_simulated() -> None:
    record = os.memfd_create("record")
    argv = [sys.executable, "-c", UNNAMED, str(record), sys.executable, "-c", "import os; os.open('/dev/kvm', 2)"]
    assert subprocess.run(argv, pass_fds=(record,), check=False).returncode == 0
    assert json.loads(os.pread(record, 1 << 20, 0))["platform"] == "of no file"
    os.close(record)


def test_closing_the_stop_descriptor_kills_the_command() -> None:
    record = os.memfd_create("record")
    stop, held = os.pipe()
    process = supervised("import time; print('ready', flush=True); time.sleep(1000)", stop, record)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.close(held)
    assert process.wait(PATIENCE) == 128 + signal.SIGKILL
    os.close(record)
    os.close(stop)


def recorded(path: str, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "plugin.kvm.command", "--record", path, "--", *code.split()]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_command_quicker_than_the_simulation_has_a_record(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    for _ in range(3):
        assert recorded(str(path), "true [/x]").returncode == 0
        (head,) = map(json.loads, path.read_text().splitlines())
        assert (head["argv"], head["module"]) == (["true", "[/x]"], "1.5.05")


def test_a_record_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    program = tmp_path / "opens.py"
    program.write_text("import os\nfor _ in range(5): os.open('/dev/kvm', 2)\n")
    done = recorded("/dev/full", f"{sys.executable} {program}")
    assert done.returncode == 0, "the command goes on"
    assert done.stderr.count("the record ends here, it cannot be written: No space left on device") == 1


USES = "import os, fcntl; k = os.open('/dev/kvm', 2); fcntl.ioctl(k, 0xAE01, 0); print('went on')"
SIM = [sys.executable, "-m", "plugin.kvm.command"]


@pytest.mark.parametrize("nowhere", ["2>/dev/full", "2>&-", ""])
def test_a_standard_error_that_cannot_be_written_ends_nothing(nowhere: str) -> None:
    """A full disk, none at all, and a pipe whose reader has gone."""
    read, write = os.pipe()
    os.close(read)

    def run(*command: str) -> tuple[int, str]:
        shell = ["sh", "-c", f'exec "$@" {nowhere}', "sh", *SIM, "--verbose", "--", *command]
        done = subprocess.run(shell, stdout=subprocess.PIPE, stderr=write, text=True, check=False, timeout=PATIENCE)
        return done.returncode, done.stdout

    assert run(sys.executable, "-c", USES) == (0, "went on\n")
    assert run("sh", "-c", "exit 7") == (7, "")
    assert run("no-such-command") == (3, "")
    os.close(write)


UNSHARE = ["unshare", "--fork", "--pid", *([] if os.geteuid() == 0 else ["--map-root-user"])]


@pytest.mark.skipif(
    subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs root or a user namespace for a PID namespace, and this system gives users none",
)
def test_a_proc_of_another_pid_namespace_is_said() -> None:
    command = [*SIM, "--", sys.executable, "-c", USES]
    done = subprocess.run([*UNSHARE, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "/proc belongs to another PID namespace" in done.stderr
    assert "unshare --mount-proc" in done.stderr
    done = subprocess.run([*UNSHARE, "--mount-proc", *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "went on\n")
