"""QEMU's command line, and what a -cpu option names."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmp_client.qemu.command_line import Machine, arguments, features_named


@pytest.mark.parametrize(
    ("cpu", "named"),
    [
        ("host", {}),
        ("host,-waitpkg", {"waitpkg": False}),
        ("host,+aes,avx512f=off,sse4_1=on", {"aes": True, "avx512f": False, "sse4-1": True}),
        ("SapphireRapids,phys-bits=46,host-phys-bits=on", {"host-phys-bits": True}),
        ("host,pku", {"pku": True}),
    ],
)
def test_features_named(cpu: str, named: dict[str, bool]) -> None:
    assert features_named(cpu) == named


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
