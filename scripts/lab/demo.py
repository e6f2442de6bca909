"""The lab in one scene. Everything that is started here ends with it, however it ends."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from plugin.processes.child import die_with_parent

PROGRAM = [sys.executable, "-m", "qmp_client.cli.entry"]
US = os.getpid()
PATIENCE = 120.0
"""Seconds after which something that should have happened is taken for lost."""
BEFORE, AFTER = "1.5.01", "1.5.05"
SHOWN = 6
"""How many changed fields of the alarm are printed."""
CONFIG = """\
# What a job may choose from on this host; anything else is refused.
firmware = "{firmware}"
cpu-models = ["host"]
modules = ["{module}"]            # simulated; without this line, the host's own TDX
platforms = ["emerald-rapids"]
[qemu]
built = "{qemu}"
"""


def die_with_us() -> None:
    """Let the kernel end this process with the demo: Ctrl-C may come between its start and our knowing of it."""
    die_with_parent(US)


def heading(text: str) -> None:
    """Begin a step."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def run(*words: str) -> None:
    """Show a command and run it."""
    print(f"$ tdx-cpuid {shlex.join(words)}", flush=True)
    subprocess.run([*PROGRAM, *words], check=False, preexec_fn=die_with_us)


@contextmanager
def started(command: list[str], **how: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a process until the end of the block."""
    process = subprocess.Popen(command, text=True, preexec_fn=die_with_us, **how)  # noqa: PLW1509
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """Mosquitto on a free port of this machine."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise SystemExit("lab-demo: there is no mosquitto here; apt-get install mosquitto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with started([program, "-c", str(config)], stderr=subprocess.DEVNULL):
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        yield port


@contextmanager
def agent(folder: Path, host: str, module: str) -> Iterator[None]:
    """An agent of the pool emr, with one simulated module."""
    config = folder / f"{host}.toml"
    config.write_text(
        CONFIG.format(qemu=os.environ["TDX_CPUID_QEMU"], firmware=os.environ["TDX_CPUID_FIRMWARE"], module=module)
    )
    words = ["--pool", "emr", "--host", host, "--config", str(config), "--state", str(folder / f"{host}.sqlite")]
    with (folder / f"{host}.log").open("a") as log, started([*PROGRAM, "agent", *words], stdout=log, stderr=log):
        yield


def heard(said: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What ``watch --format json`` prints, as topic and message."""
    for line in said:
        one = json.loads(line)
        yield one["topic"], one["message"]


def until_measured(said: Iterator[tuple[str, dict[str, Any]]], host: str) -> None:
    """Wait until the host has measured by itself what its guests see."""
    for topic, message in said:
        measured = message.get("job", "").startswith(f"measure-{host}-") and message.get("state") == "done"
        if "/progress/" in topic and measured:
            return
    raise SystemExit(f"lab-demo: {host} is not heard")


def scene(folder: Path) -> None:
    """The whole demonstration."""
    heading("1. A broker, and two hosts with a simulated TDX module " + BEFORE)
    print("Each host runs one agent. It offers what its own configuration lists; a job names, and never brings a path.")
    with broker(folder) as port:
        os.environ["TDX_CPUID_BROKER"] = f"mqtt://127.0.0.1:{port}"
        watch = [*PROGRAM, "watch", "--format", "json"]
        with started(watch, stdout=subprocess.PIPE) as watching, agent(folder, "beta", BEFORE):
            said = heard(iter(watching.stdout or ()))
            with agent(folder, "alpha", BEFORE):
                # Both measure as soon as they start: what they find is what later measurements are held against.
                until_measured(said, "alpha")
                run("watch", "--once")

                heading("2. A grid of jobs for the pool: the broker gives each to one of the hosts")
                features = ("host", "host,-avx512f", "host,-waitpkg")
                cpus = [word for cpu in features for word in ("--cpu", cpu)]
                run("submit", "--pool", "emr", *cpus, "--smp", "1", "--smp", "2", "--fail-on", "none")

                heading(f"3. alpha gets a new TDX module, {BEFORE} -> {AFTER}, and starts again")
            with agent(folder, "alpha", AFTER):
                print("It measures again by itself, and compares with what it stored before.", flush=True)
                alarm = next(message for topic, message in said if topic.endswith("/events/drift"))
                heading("4. The alarm: guests of alpha see another CPUID than before")
                print(f"host {alarm['host']}, -cpu {alarm['cpu']}: {len(alarm['changes'])} fields changed")
                print(f"likely reason: {alarm['likely']}")
                for change in alarm["changes"][:SHOWN]:
                    print(f"  {change['field']:24} {change['name']:24} {change['before']:#x} -> {change['now']:#x}")
                if len(alarm["changes"]) > SHOWN:
                    print(f"  and {len(alarm['changes']) - SHOWN} more")
                run("drain", "alpha")
                run("watch", "--once")
    heading("Everything is stopped and removed. docs/lab/tour.md goes through it slowly.")


def main() -> int:
    """Play the scene; Ctrl-C ends it as well."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="tdx-cpuid-lab-") as folder:
        try:
            scene(Path(folder))
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
