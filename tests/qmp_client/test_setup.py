"""What a TD's QEMU is started with."""

from __future__ import annotations

from pathlib import Path

from qmp_client.negotiation.setup import Setup
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu.command_line import Machine, arguments

MACHINE = Machine(Path("/usr/bin/qemu"), Path("/usr/share/td.fd"), smp="2")


def test_further_words_stand_behind_the_machine_s() -> None:
    setup = Setup(MACHINE, None, Wish(), 30, ("-device", "virtio-rng"))
    assert setup.command_line(7) == [*arguments(MACHINE, 7), "-device", "virtio-rng"]
    assert setup.host is None


def test_a_command_line_of_the_user_s_own_is_taken_instead() -> None:
    setup = Setup(MACHINE, None, Wish(), 30, own=lambda monitor: ["/opt/qemu", "-chardev", f"socket,fd={monitor}"])
    assert setup.command_line(7) == ["/opt/qemu", "-chardev", "socket,fd=7"]
