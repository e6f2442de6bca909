"""QEMU's command line, and what a -cpu option names."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmp_client.qemu.command_line import Machine, arguments, changes, enforces, settings


@pytest.mark.parametrize(
    ("cpu", "said"),
    [
        ("host", []),
        ("host,-waitpkg", [("-waitpkg", "waitpkg", "off")]),
        ("host,-aes,+sse4_1,avx512f=off", [("avx512f=off", "avx512f", "off"), ("+sse4_1", "sse4-1", "on"),
                                           ("-aes", "aes", "off")]),
        ("SapphireRapids,phys-bits=46,host_phys_bits=yes", [("phys-bits=46", "phys-bits", "46"),
                                                            ("host_phys_bits=yes", "host-phys-bits", "on")]),
        ("host,pku", [("pku", "pku", "on")]),
    ],
)  # fmt: skip
def test_words_of_cpu_in_qemu_s_order(cpu: str, said: list[tuple[str, str, str]]) -> None:
    assert [tuple(setting) for setting in settings(cpu)] == said


@pytest.mark.parametrize(
    ("cpu", "holds"),
    [("host", False), ("Nehalem,enforce", True), ("host,enforce=off", False), ("host,enforce=off,enforce=on", True)],
)
def test_enforce_is_for_the_report(cpu: str, holds: bool) -> None:
    """QEMU would end at the first feature that is not there, and nothing could be read."""
    assert enforces(cpu) is holds
    argv = arguments(Machine(Path("/q"), Path("/f"), cpu=cpu), monitor_fd=7)
    assert "enforce" not in argv[argv.index("-cpu") + 1]
    assert any("enforce" in sentence for sentence in changes(cpu)) is ("enforce" in cpu)


def test_the_user_s_cpu_reaches_qemu_untouched() -> None:
    argv = arguments(Machine(Path("/q"), Path("/f"), cpu="host,-avx512f,+x", smp="sockets=2,cores=2"), monitor_fd=7)
    assert argv[argv.index("-cpu") + 1] == "host,-avx512f,+x"
    assert argv[argv.index("-smp") + 1] == "sockets=2,cores=2"
    assert "-preconfig" in argv, "nothing may be decided before the choice is fed"
    assert "socket,id=qmp,fd=7" in argv
    assert argv[argv.index("-qmp") + 1] == "chardev:qmp", "QEMU 11.1 warns of -mon"


def test_named_models_are_allowed_and_take_the_host_s_address_width() -> None:
    argv = arguments(Machine(Path("/q"), Path("/f"), cpu="SapphireRapids-v2,-amx-tile"), monitor_fd=7)
    assert argv[argv.index("-cpu") + 1] == "SapphireRapids-v2,-amx-tile,host-phys-bits=on"
    assert argv[argv.index("-object") + 1] == "tdx-guest,id=tdx0,x-named-cpu-models=on"
    given = arguments(Machine(Path("/q"), Path("/f"), cpu="Denverton,phys-bits=52"), monitor_fd=7)
    assert given[given.index("-cpu") + 1] == "Denverton,phys-bits=52", "what the user says stays"
    host = arguments(Machine(Path("/q"), Path("/f")), monitor_fd=7)
    assert host[host.index("-object") + 1] == "tdx-guest,id=tdx0"
