"""Whatever `sim --record` writes, `replay` shows; and what it did not write is refused in a sentence."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from plugin.kvm.contract import BadAddress, Device, NewFile, Rejected, Reply, Wait
from plugin.kvm.conversation.recorder import RecordedKvm, Recorder
from plugin.kvm.uapi import registers
from plugin.kvm.uapi.ioctls import NUMBERS, REQUESTS
from plugin.kvm.uapi.layout import Layout
from plugin.tdx_module import ModuleVersion, Platform, TdxHost, load_module, load_platform
from qmp_client.cli.program import run
from qmp_client.errors import UsageError
from qmp_client.replay.read import read
from qmp_client.replay.show import show
from qmp_client.replay.td import stories
from qmp_client.report.policy import parse
from tests.kvm.device.conftest import BASE, Vmm
from tests.kvm.device.test_any_ioctl import GARBAGE, POINTERS, devices

HEAD = {"argv": ["vmm", "a\udcff"], "module": "1.5.05", "platform": "sapphire-rapids", "interface": "upstream"}
ANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large], max_examples=50)


class Undisturbed(Vmm):
    """Makes each call once: what signals do is a matter of the devices' own tests."""

    def overtaken(self, device: Device, request: int, argument: int) -> None:
        return


@pytest.fixture
def module() -> ModuleVersion:
    return load_module("1.5.05")


@pytest.fixture
def platform() -> Platform:
    return load_platform("sapphire-rapids")


@pytest.fixture
def vmm(module: ModuleVersion, platform: Platform) -> Vmm:
    return Undisturbed(module, platform)


def recording(vmm: Vmm) -> io.StringIO:
    """Start over, with a recorder between the VMM and its KVM."""
    vmm.start_over()
    out = io.StringIO()
    opened = RecordedKvm(vmm.kvm, Recorder(out, HEAD)).open()
    assert opened.handler is not None and opened.commit is not None
    opened.commit()
    vmm.system = opened.handler
    return out


def call(vmm: Vmm, kind: str, request: int, argument: int) -> None:
    """Make one call of a descriptor of that kind, and have the kernel take the answer."""
    try:
        answer = devices(vmm)[kind].ioctl(request, argument, vmm.memory)
    except BadAddress:
        return
    except Rejected as rejected:
        if rejected.commit is not None:
            rejected.commit()
        return
    assert isinstance(answer, Reply | NewFile | Wait)
    if not isinstance(answer, Wait) and answer.commit is not None:
        answer.commit()


def shown(path: Path, *, tables: bool = True) -> str:
    """What `replay` says; without the module's tables it need not explain 200 fields of each TD."""
    talk = read(path)
    out = io.StringIO()
    host = TdxHost(load_module(talk.head.module), load_platform(talk.head.platform)) if tables else None
    show(talk, stories(talk, host), parse(""), out, calls=True)
    return out.getvalue()


KINDS = {"system": "system", "fresh vm": "vm", "td": "vm", "vcpu": "vcpu", "plain vcpu": "vcpu"}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@ANY
def test_any_call_is_shown(vmm: Vmm, kind: str, tmp_path: Path, data: st.DataObject) -> None:
    out = recording(vmm)
    requests = [row.number for row in REQUESTS if KINDS[kind] in row.kinds]
    vmm.memory.write(BASE + 65536, data.draw(GARBAGE).ljust(8192, b"\0"))
    request = data.draw(st.one_of(st.sampled_from(requests), st.integers(0, (1 << 32) - 1)))
    call(vmm, kind, request, data.draw(POINTERS.map(lambda at: at + 65536 if at >> 44 else at)))
    file = tmp_path / "talk.jsonl"
    file.write_text(out.getvalue())
    assert "simulated KVM (upstream interface)" in shown(file, tables=False)


@pytest.mark.parametrize("layout", registers.LAYOUTS, ids=lambda layout: layout.name)
def test_registers_with_every_byte_of_their_padding_set(vmm: Vmm, tmp_path: Path, layout: Layout) -> None:
    out = recording(vmm)
    name = layout.name.replace("kvm_", "KVM_SET_").upper()
    call(vmm, "plain vcpu", NUMBERS[name], vmm.place(b"\xff" * layout.size))
    file = tmp_path / "talk.jsonl"
    file.write_text(out.getvalue())
    assert name in shown(file)


def recorded(vmm: Vmm) -> list[dict[str, Any]]:
    """The lines of a conversation in which a TD is made and its CPUID read."""
    out = recording(vmm)
    vm = vmm.td_vm()
    vmm.capabilities(vm)
    vmm.init_vm(vm)
    vmm.get_cpuid(vmm.td_vcpu(vm))
    return [json.loads(line) for line in out.getvalue().splitlines()]


def entry_of(lines: list[dict[str, Any]], where: str) -> dict[str, Any]:
    found: dict[str, Any] = next(line for line in lines if line.get(where, {}).get("entries"))[where]["entries"][0]
    return found


DAMAGE: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "a register is missing": lambda lines: entry_of(lines, "out").pop("ecx"),
    "a register is a text": lambda lines: entry_of(lines, "out").update(eax="0x1"),
    "a register has 33 bits": lambda lines: entry_of(lines, "in").update(eax=1 << 32),
    "a list of entries is none": lambda lines: next(li for li in lines if "out" in li).update(out={"entries": 7}),
    "ATTRIBUTES are a text": lambda lines: next(li for li in lines if "xfam" in li.get("in", {}))["in"].update(
        attributes="x"
    ),
    "a number has 65 bits": lambda lines: lines[1].update(result=1 << 64),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_is_named(vmm: Vmm, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = recorded(vmm)
    DAMAGE[damage](lines)
    file = tmp_path / "talk.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n{}\n")
    assert run(["replay", str(file)]) == 2
    assert f"{file}, line " in capsys.readouterr().err


def test_a_choice_that_could_not_be_read_is_no_td(vmm: Vmm, tmp_path: Path) -> None:
    """Another thread may take the memory away between the call and the record of it."""
    lines = recorded(vmm)
    next(line for line in lines if "xfam" in line.get("in", {}))["in"] = {
        "command": "KVM_TDX_INIT_VM",
        "unreadable": "the caller has no 256 accessible bytes at 0x1000",
    }
    file = tmp_path / "talk.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    assert "vm-0: no TD: what KVM_TDX_INIT_VM was given is not in the record" in shown(file)


@given(position=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@example(position=0.0, byte=0xFF)
@ANY
def test_a_flipped_byte_is_shown_or_refused(vmm: Vmm, tmp_path: Path, position: float, byte: int) -> None:
    content = bytearray("\n".join(map(json.dumps, recorded(vmm))).encode())
    content[int(position * len(content))] ^= byte or 1
    file = tmp_path / "talk.jsonl"
    file.write_bytes(content)
    try:
        talk = read(file)
    except UsageError as error:
        assert str(file) in str(error)
        return
    show(talk, stories(talk, None), parse(""), io.StringIO(), calls=True)
