"""Writes a conversation down while it takes place: devices that pass every call on and remember it.

An answer, granted or refused, is written once the kernel has taken it, so a call that a signal interrupted appears as
often as the VMM saw it answered.
"""

from __future__ import annotations

import errno
import json
import os

from plugin.kvm.contract import BadAddress, Device, Kvm, Memory, NewFile, Rejected, Reply, SharedPages, Wait, then
from plugin.kvm.conversation.decode import Decoder
from plugin.kvm.say import say
from plugin.typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TextIO

SCHEMA = "tdx-cpuid/conversation/1"


class Recorder:
    """The record on its way to a file: a head, then one object a line for each call."""

    def __init__(self, out: TextIO, head: dict[str, Any]) -> None:
        self._out = out
        self._number = 0
        self._files: dict[str, int] = {}
        argv = [os.fsencode(word).decode("utf-8", "backslashreplace") for word in head["argv"]]
        self._write({"schema": SCHEMA} | head | {"argv": argv})

    def name(self, kind: str) -> str:
        """The name of a new file: its kind, and a number from 0 on."""
        number = self._files.get(kind, 0)
        self._files[kind] = number + 1
        return f"{kind}-{number}"

    def call(self, what: dict[str, Any]) -> None:
        """Write one call, numbered."""
        self._number += 1
        self._write({"n": self._number} | what)

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._out.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._out.flush()
        except OSError as error:
            say(f"tdx-cpuid sim: the record ends here, it cannot be written: {error.strerror}")
            self._write = lambda line: None  # type: ignore[method-assign]  # once is enough


def recorded(kvm: Kvm, descriptor: int, head: dict[str, Any]) -> Kvm:
    """Put a recorder in front of a KVM that writes to that descriptor; `head` says what is recorded."""
    out = os.fdopen(descriptor, "w", encoding="utf-8", closefd=False)
    return RecordedKvm(kvm, Recorder(out, head))


class RecordedKvm:
    """A KVM (see `plugin.kvm.contract.Kvm`) whose conversation is recorded."""

    def __init__(self, kvm: Kvm, recorder: Recorder) -> None:
        self._kvm = kvm
        self._recorder = recorder

    def open(self) -> NewFile:
        """Answer an open of /dev/kvm as the recorded KVM does."""
        return _followed(self._kvm.open(), self._recorder, {"on": "/dev/kvm", "call": "open"})


class RecordedDevice:
    """One recorded descriptor."""

    def __init__(self, device: Device, recorder: Recorder) -> None:
        self.kind = device.kind
        self.name = ""
        """In the record; given once the caller has the descriptor."""
        self._device = device
        self._recorder = recorder

    def attached(self, shared: SharedPages) -> None:
        """Pass the pages on."""
        self._device.attached(shared)

    def ioctl(self, request: int, argument: int, memory: Memory) -> Reply | NewFile | Wait:
        """Pass the call on and record it. Raises what the device raises."""
        decoder = Decoder(self.kind, request & 0xFFFFFFFF, argument, memory)
        line: dict[str, Any] = {"on": self.name, "call": decoder.name}
        if said := decoder.before():
            line["in"] = said
        try:
            answer = self._device.ioctl(request, argument, memory)
        except Rejected as rejected:
            name = errno.errorcode.get(rejected.errno, str(rejected.errno))
            if decoder.tells_when_refused(rejected.errno):
                line |= _written(decoder)
            line |= {"errno": name, "why": rejected.why}
            rejected.then(lambda: self._recorder.call(line))
            raise
        except BadAddress as bad:
            line |= {"errno": "EFAULT", "why": str(bad)}
            raise Rejected(errno.EFAULT, str(bad), lambda: self._recorder.call(line)) from bad
        if isinstance(answer, Wait):
            self._recorder.call(line | {"waits": True})
            return answer
        if isinstance(answer, NewFile):
            return _followed(answer, self._recorder, line)
        line |= _written(decoder) | {"result": answer.value}
        return Reply(answer.value, then(answer.commit, lambda: self._recorder.call(line)))


def _written(decoder: Decoder) -> dict[str, Any]:
    written = decoder.after()
    return {"out": written} if written else {}


def _followed(new: NewFile, recorder: Recorder, line: dict[str, Any]) -> NewFile:
    """Put a recorder in front of a new file's device, which gets its name with the call's line."""
    device = None if new.handler is None else RecordedDevice(new.handler, recorder)

    def record() -> None:
        name = recorder.name(device.kind if device else new.name)
        if device is not None:
            device.name = name
        recorder.call(line | {"new": name})

    return new._replace(handler=device, commit=then(new.commit, record))
