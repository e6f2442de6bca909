"""The user's own QEMU command line: everything stays, and only what is needed is added."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmp_client.errors import UsageError
from qmp_client.qemu.own_command_line import OwnCommandLine, adapt, keyval, options

TD = (
    "qemu-system-x86_64 -accel kvm -object tdx-guest,id=lsec0 -cpu host,-avx512f -smp 4 -m 2G -bios /OVMF.fd"
    " -machine pc-q35-10.1,kernel-irqchip=split,confidential-guest-support=lsec0 -preconfig -S -display none"
)


def adapted(line: str, *, patched: bool = True) -> OwnCommandLine:
    return adapt(line.split(), Path("/qemu"), Path("/ours.fd"), patched=patched)


def value(own: OwnCommandLine, option: str) -> list[str]:
    return [own.words[at + 1] for at, word in enumerate(own.words) if word == option]


def value_of(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_a_line_that_has_everything_only_gets_the_monitor() -> None:
    own = adapted(TD)
    assert own.additions == ()
    assert list(own.words) == ["/qemu", *TD.split()[1:]]
    assert own.arguments(7)[len(own.words) :] == [
        "-chardev", "socket,id=tdx-cpuid-qmp,fd=7", "-qmp", "chardev:tdx-cpuid-qmp",
    ]  # fmt: skip
    machine = own.machine
    assert (machine.cpu, machine.smp, machine.memory, machine.machine) == ("host,-avx512f", "4", "2G", "pc-q35-10.1")
    assert machine.firmware == Path("/OVMF.fd")


def test_the_td_and_the_monitor_have_names_of_their_own() -> None:
    """QEMU 11.1 makes an object of a monitor, and refuses a second object of the same name."""
    words = adapted("qemu-system-x86_64 -accel kvm").arguments(7)
    td = value_of(words, "-object").partition("id=")[2].partition(",")[0]
    monitor = value_of(words, "-qmp").removeprefix("chardev:")
    assert td
    assert td != monitor


def test_an_ordinary_guest_becomes_a_td() -> None:
    own = adapted("qemu-system-x86_64 -enable-kvm -M q35 -m 4G -drive file=a.qcow2,if=virtio -nographic disk.img")
    assert own.words[1:8] == ("-enable-kvm", "-M", "q35", "-m", "4G", "-drive", "file=a.qcow2,if=virtio")
    assert "disk.img" in own.words
    assert value(own, "-object") == ["tdx-guest,id=tdx-cpuid"]
    assert value(own, "-machine") == ["kernel-irqchip=split,confidential-guest-support=tdx-cpuid"]
    assert value(own, "-cpu") == ["host"]
    assert value(own, "-bios") == ["/ours.fd"]
    assert {"-preconfig", "-S"} <= set(own.words)
    assert not {"-accel", "-display", "-nodefaults"} & set(own.words), "it has those already, or does not need them"
    assert len(own.additions) == 6
    assert "added to your command line: -bios /ours.fd" in own.additions


def test_a_td_object_that_no_machine_names_is_named() -> None:
    own = adapted("qemu -accel kvm -object tdx-guest,id=t -machine q35,kernel-irqchip=split -bios /f -display none")
    assert value(own, "-machine")[-1] == "confidential-guest-support=t"
    assert value(own, "-object") == ["tdx-guest,id=t"]


def test_json_and_several_machine_options_as_libvirt_writes_them() -> None:
    own = adapt(
        ["qemu", "-machine", "q35", "-machine", "accel=kvm,kernel-irqchip=split", "-machine",
         "confidential-guest-support=lsec0", "-object", '{"qom-type":"tdx-guest","id":"lsec0"}', "-cpu",
         "SapphireRapids", "-bios", "/f", "--preconfig", "-S", "-vnc", ":1"],
        Path("/qemu"), Path("/f"),
    )  # fmt: skip
    assert value(own, "-object") == ['{"qom-type": "tdx-guest", "id": "lsec0", "x-named-cpu-models": true}']
    assert value(own, "-cpu") == ["SapphireRapids,host-phys-bits=on"]
    assert [said.partition(":")[0] for said in own.additions] == ["changed in your command line"] * 2


def test_a_stock_qemu_is_not_told_what_it_does_not_know() -> None:
    own = adapted("qemu -cpu SapphireRapids", patched=False)
    assert value(own, "-object") == ["tdx-guest,id=tdx-cpuid"]


def test_two_monitors_are_fine_and_none_holds_qemu_up() -> None:
    own = adapted(f"{TD} -qmp unix:/a,server -monitor unix:/b,server=on,wait=off -serial tcp::1,server=on -qmp tcp::2")
    assert value(own, "-qmp") == ["unix:/a,server,wait=off", "tcp::2"]
    assert value(own, "-monitor") == ["unix:/b,server=on,wait=off"]
    assert value(own, "-serial") == ["tcp::1,server=on,wait=off"]


CONFIG = """
# a comment
[machine]
  type = "pc-q35-10.1"
  accel = "kvm"

[smp-opts]
  cpus = "2"

[object "mine"]
  qom-type = "tdx-guest"
"""


def test_what_a_config_file_says_is_kept() -> None:
    words = ["qemu", "-readconfig", "a.cfg", "-cpu", "host", "-bios", "/f", "-display", "none", "-preconfig", "-S"]
    own = adapt(words, Path("/qemu"), Path("/f"), configs={"a.cfg": CONFIG})
    assert own.machine.machine == "pc-q35-10.1"
    assert own.machine.smp == "2"
    assert own.additions == ("added to your command line: -machine confidential-guest-support=mine",)


def test_what_would_have_to_change_in_a_config_file_is_said() -> None:
    words = ["qemu", "-readconfig", "a.cfg", "-cpu", "SapphireRapids"]
    with pytest.raises(UsageError, match="-readconfig has object id=mine,qom-type=tdx-guest, which must be"):
        adapt(words, Path("/qemu"), Path("/f"), configs={"a.cfg": CONFIG})
    with pytest.raises(UsageError, match="runs on tcg"):
        adapt(words, Path("/qemu"), Path("/f"), configs={"a.cfg": CONFIG.replace('"kvm"', '"tcg"')})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-daemonize", "out of reach"),
        ("-incoming tcp:0:4444", "nothing to negotiate"),
        ("-accel tcg", "needs KVM"),
        ("-machine q35,accel=tcg", "needs KVM"),
        ("-machine kernel-irqchip=on", "needs kernel-irqchip=split"),
        ("-object sev-guest,id=s", "another kind"),
        ("-machine confidential-guest-support=x", "no -object with that id"),
        ("-drive if=pflash,file=OVMF.fd", "pflash"),
        ("-chardev socket,id=c,fd=27", "not open here"),
        ("-cpu help", "prints a list"),
        ("-version", "ends QEMU"),
        ("-m", "takes an argument"),
    ],
)
def test_what_cannot_be_negotiated_with_is_refused_with_a_sentence(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        adapted(f"qemu-system-x86_64 {words}")


def test_wrappers_are_not_qemu() -> None:
    with pytest.raises(UsageError, match="in front of tdx-cpuid"):
        adapted("sudo qemu-system-x86_64")


def test_keyval() -> None:
    assert keyval("q35,a=b,,c,d", "type") == {"type": "q35", "a": "b,c", "d": "on"}
    assert keyval("type=q35,usb=off", "type") == {"type": "q35", "usb": "off"}
    assert keyval('{"id": "x", "on": true}', "type") == {"id": "x", "on": "on"}


WORDS = st.text("abcdefghijklmnop=:/._0", min_size=1, max_size=8)


@given(st.lists(st.one_of(st.tuples(st.sampled_from(["-name", "-smp", "-uuid", "--rtc"]), WORDS), st.tuples(WORDS))))
def test_the_user_s_words_stay_in_their_order(pairs: list[tuple[str, ...]]) -> None:
    words = [word for pair in pairs for word in pair]
    own = adapt(["qemu", *words], Path("/q"), Path("/f"))
    assert list(own.words[1 : 1 + len(words)]) == [w.replace("--", "-", 1) for w in words]
    assert len(options(words)) == len(pairs)
