"""Who dies with whom, and what is left: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plugin.kvm.command import main
from tests.kvm.supervisor.conftest import Start
from tests.waiting import PATIENCE, gone

# A thread's KVM_RUN waits; a child of the command sleeps; then the command says so.
WAITING = """
import os, fcntl, threading, sys, time
kvm = os.open("/dev/kvm", os.O_RDWR); vcpu = fcntl.ioctl(kvm, 0xAE01)
child = os.fork()
if child == 0:
    time.sleep(1000)
threading.Thread(target=fcntl.ioctl, args=(vcpu, 0xAE80), daemon=True).start()
print(child, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_to_the_supervisor_reach_the_command(start: Start, number: int) -> None:
    code = (
        f"import signal; signal.signal({int(number)}, lambda *_: exit(7)); print('ready', flush=True); signal.pause()"
    )
    supervised = start(sys.executable, "-c", code)
    assert supervised.line() == "ready"
    supervised.process.send_signal(number)
    assert supervised.end()[0] == 7


def test_sigkill_of_the_supervisor_kills_the_command(start: Start) -> None:
    supervised = start(sys.executable, "-c", WAITING)
    grandchild = int(supervised.line())
    supervised.process.kill()
    supervised.process.wait(PATIENCE)
    assert gone(supervised.pid)
    os.kill(grandchild, signal.SIGKILL)  # not traced (no CPUID in its executable), so on its own


def test_sigkill_of_the_command_ends_everything(start: Start) -> None:
    supervised = start(sys.executable, "-c", WAITING)
    grandchild = int(supervised.line())
    os.kill(supervised.pid, signal.SIGKILL)
    assert supervised.end()[0] == 128 + signal.SIGKILL
    assert gone(supervised.pid)
    assert gone(grandchild)


def test_what_the_command_leaves_behind_is_killed(start: Start) -> None:
    supervised = start("sh", "-c", "(setsid sleep 1000 >/dev/null 2>&1 & echo $!); exit 5")
    orphan = int(supervised.line())
    assert supervised.end()[0] == 5
    assert gone(orphan)


def test_killing_a_caller_in_the_middle_of_an_open_harms_nobody(start: Start) -> None:
    code = """
import os, signal, fcntl
for _ in range(50):
    child = os.fork()
    if child == 0:
        while True: os.close(os.open("/dev/kvm", os.O_RDWR)); os.close(os.open("/dev/null", os.O_RDWR))
    os.read(os.open("/dev/zero", os.O_RDONLY), 1)
    os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
print(fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), 0xAE00))
"""
    status, out, end = start(sys.executable, "-c", code).end()
    assert (status, out, end["warnings"]) == (0, "12\n", [])


def test_exit_status_and_environment_pass_through(start: Start) -> None:
    assert start("sh", "-c", "exit 41").end()[0] == 41
    code = "import signal, sys; print(signal.pthread_sigmask(0, []), signal.getsignal(13)); sys.exit(0)"
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert start(sys.executable, "-c", code).end()[1] == plain


def test_a_command_that_cannot_be_executed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.write_text("not executable")
    for command, text in (("no-such-command", "No such file"), (str(data), "Permission denied"), ("/", "denied")):
        run = subprocess.run(
            [sys.executable, "-m", "plugin.kvm.command", "--", command], capture_output=True, text=True, check=False
        )
        assert run.returncode == 3
        assert command in run.stderr
        assert text in run.stderr


def test_a_folder_of_the_path_that_may_not_be_searched_is_passed_over(tmp_path: Path) -> None:
    """As a shell does: root's, in the PATH of somebody who became another user."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "true").write_text("may not be executed")
    command = [sys.executable, "-m", "plugin.kvm.command", "--"]
    for name, status in (("true", 0), ("no-such-command", 3)):
        environment = os.environ | {"PATH": f"{closed}:{os.environ['PATH']}"}
        assert subprocess.run([*command, name], env=environment, check=False).returncode == status


def test_usage_errors(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert main(["--module", "1.5.5", "--", "true"]) == 2
    assert main(["--platform", "emerald", "--", "true"]) == 2
    assert "emerald-rapids" in capfd.readouterr().err
