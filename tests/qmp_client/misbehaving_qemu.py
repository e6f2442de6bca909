#!/usr/bin/env python3
"""A program that starts like QEMU and then misbehaves as MISBEHAVE says: the ways a real one can die or hang.

It is the other side of the conversation, not a stand-in for it: every test that uses it is about what the
orchestrator does when QEMU does not do its part.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

GREETING = {
    "QMP": {"version": {"qemu": {"major": 10, "minor": 2, "micro": 2}, "package": "misbehaving"}, "capabilities": []}
}
PATCHED = [
    "query-commands",
    "x-query-tdx-config-cpuid",
    "x-query-tdx-requested-cpuid",
    "x-query-tdx-vcpu-cpuid",
    "x-tdx-set-cpuid-choices",
]
ENTRY = {"leaf": 0x80000008, "eax": 52 << 16, "ebx": 0, "ecx": 0, "edx": 0}
ANSWERS: dict[str, Any] = {
    "qmp_capabilities": {},
    "query-commands": [{"name": name} for name in PATCHED],
    "x-query-tdx-config-cpuid": {
        "supported-attributes": 1 << 28,
        "supported-xfam": 7,
        "interface": "upstream",
        "cpuid": [ENTRY | {"eax": 0xFF0000}],
    },
    "x-query-tdx-requested-cpuid": {"attributes": 1 << 28, "xfam": 7, "cpuid": [ENTRY], "dropped": []},
    "x-tdx-set-cpuid-choices": {},
    "x-exit-preconfig": {},
    "query-cpus-fast": [{"cpu-index": 0}],
    "x-query-tdx-vcpu-cpuid": {"cpu-index": 0, "cpuid": [ENTRY]},
    "quit": {},
}


def main() -> None:
    how = os.environ["MISBEHAVE"]
    fd = re.search(r"socket,id=qmp,fd=(\d+)", " ".join(sys.argv))
    assert fd is not None, sys.argv
    monitor = socket.socket(fileno=int(fd.group(1)))
    print(f"misbehaving on purpose: {how}", file=sys.stderr, flush=True)
    misbehave, _, where = how.partition("@")
    if where == "greeting":
        ACTS[misbehave](monitor)
    greeting = {"QMP": GREETING["QMP"] | {"version": {}}} if how == "bare@greeting" else GREETING
    monitor.sendall(json.dumps(greeting).encode() + b"\r\n")
    for request in requests(monitor):
        if request["execute"] == where:
            ACTS[misbehave](monitor)
        answer = {"return": ANSWERS[request["execute"]]}
        if misbehave == "stock" and request["execute"] == "query-commands":
            answer = {"return": [{"name": "query-commands"}]}
        if misbehave == "shape" and request["execute"] == where:
            answer = {"return": {"cpuid": "none today"}}
        if misbehave == "bare" and request["execute"] == where:
            answer = {"return": [{}]}
        if "id" in request:
            answer["id"] = request["id"]
        monitor.sendall(json.dumps(answer).encode() + b"\r\n")
        if request["execute"] == "quit":
            return


def requests(monitor: socket.socket) -> Iterator[dict[str, Any]]:
    """The client's messages; QMP puts nothing between them."""
    buffer, decoder = "", json.JSONDecoder()
    while data := monitor.recv(65536):
        buffer += data.decode()
        while buffer.strip():
            try:
                request, end = decoder.raw_decode(buffer.lstrip())
            except ValueError:
                break
            buffer = buffer.lstrip()[end:]
            yield request


def exit_with_a_word(monitor: socket.socket) -> None:
    print("qemu-system-x86_64: something is badly wrong", file=sys.stderr, flush=True)
    os._exit(1)


def be_killed(monitor: socket.socket) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(monitor: socket.socket) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if note := os.environ.get("HANGS"):
        Path(note).touch()
    time.sleep(3600)


def truncate(monitor: socket.socket) -> None:
    monitor.sendall(b'{"return": {"supported-xf')
    monitor.shutdown(socket.SHUT_RDWR)
    time.sleep(3600)


def babble(monitor: socket.socket) -> None:
    monitor.sendall(b"\x00\xff this is not JSON\r\n")
    time.sleep(3600)


ACTS: dict[str, Callable[[socket.socket], None]] = {
    "exit": exit_with_a_word,
    "killed": be_killed,
    "hang": hang,
    "truncate": truncate,
    "babble": babble,
    "shape": lambda monitor: None,
    "bare": lambda monitor: None,
}

if __name__ == "__main__":
    main()
