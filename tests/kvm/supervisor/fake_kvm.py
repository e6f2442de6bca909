"""Runs a command under the real supervisor with a tiny device behind /dev/kvm.

Arguments: a descriptor that takes what the supervisor knows, as lines of JSON; `simulated` or `native` CPUID; the
number of the device that the command shall never get; the command. Exits as the command does.
"""

import json
import os
import signal
import struct
import sys
from pathlib import Path

from plugin.cpuid.leaf import Registers
from plugin.kvm.contract import Device, Memory, NewFile, Rejected, Reply, SharedPages, Wait
from plugin.kvm.supervisor.spawn import Command, Starting
from plugin.kvm.supervisor.supervisor import Loading, Simulation, Supervisor, Trace

COMMITS: list[str] = []


class Vcpu:
    kind = "vcpu"

    def ioctl(self, request: int, argument: int, memory: Memory) -> Reply | NewFile | Wait:
        if request == 0xAE80:
            return Wait()
        raise Rejected(22, "only KVM_RUN")

    def attached(self, shared: SharedPages) -> None:
        shared[16:20] = b"VCPU"


class System:
    kind = "system"

    def ioctl(self, request: int, argument: int, memory: Memory) -> Reply | NewFile | Wait:
        match request & 0xFF:
            case 0x00:
                return Reply(12)
            case 0x01:
                return NewFile(Vcpu(), 8192, "vcpu", lambda: COMMITS.append("vcpu"))
            case 0x02:
                memory.write(argument, memory.read(argument, 8)[::-1])
                return Reply(0)
            case 0x03:
                return NewFile(None, 4096, "memory")
            case 0x05:
                return self._interrupted(argument, memory)
            case 0x06:
                self._interrupted(argument, memory)
                raise Rejected(25, "refused", lambda: COMMITS.append("refused"))
            case 0x04:
                raise RuntimeError("a bug in the device")
        raise Rejected(25, "no such request")

    def _interrupted(self, argument: int, memory: Memory) -> Reply:
        """Count up in the caller's memory; the first time a signal ends the call between that and the answer."""
        pid, count = struct.unpack("<QQ", memory.read(argument, 16))
        memory.write(argument + 8, struct.pack("<Q", count + 1))
        if "interrupted" not in COMMITS:
            COMMITS.append("interrupted")
            os.kill(pid, signal.SIGUSR1)
            # No longer pending: it is being delivered, so the caller has left the call.
            while signal.SIGUSR1 in pending(pid):
                pass
        return Reply(count)

    def attached(self, shared: SharedPages) -> None:
        raise AssertionError("only vCPUs have shared pages")


def pending(pid: int) -> set[int]:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    mask = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
    return {number for number in range(1, 65) if mask >> number - 1 & 1}


class FakeKvm:
    def open(self) -> NewFile:
        device: Device = System()
        return NewFile(device, 0, "kvm")


def cpuid(leaf: int, subleaf: int) -> Registers:
    return Registers(leaf ^ 0x80000001, 0x41424344, subleaf + 1, 0xDEADBEEF)


def loading() -> Loading:
    yield
    return Simulation(FakeKvm(), cpuid, intercept=sys.argv[2] == "simulated")


def main() -> int:
    channel, device, argv = int(sys.argv[1]), int(sys.argv[3]), sys.argv[4:]
    warnings: list[str] = []
    supervisor = Supervisor(Starting(Command(argv)).executed(), loading(), Trace(warnings.append), device=device)
    os.write(channel, json.dumps({"pid": supervisor.pid}).encode() + b"\n")
    status = supervisor.run()
    end = {
        "warnings": warnings,
        "commits": COMMITS,
        "cpuid": supervisor.interception._asdict(),
        "calls": supervisor.calls,
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }
    os.write(channel, json.dumps(end).encode() + b"\n")
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


if __name__ == "__main__":
    sys.exit(main())
