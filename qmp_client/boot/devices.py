"""What QEMU's command line gets more for a guest that is started: a disk, a console and the agent's port."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from qmp_client.boot.model import BootWish


class Channels(NamedTuple):
    """The guest's serial console and its agent's port, each as our end and QEMU's."""

    console: socket.socket
    agent: socket.socket
    inherited: tuple[socket.socket, socket.socket]
    """QEMU's ends, for its command line."""

    def handed_over(self) -> None:
        """QEMU has its ends: close ours of them, so that its end is noticed."""
        for end in self.inherited:
            end.close()


@contextmanager
def channels() -> Iterator[Channels]:
    """Connected sockets, so that nothing is left in any folder."""
    console, console_of_qemu = socket.socketpair()
    agent, agent_of_qemu = socket.socketpair()
    made = Channels(console, agent, (console_of_qemu, agent_of_qemu))
    for end in (console, agent):
        end.setblocking(False)
    try:
        yield made
    finally:
        made.handed_over()
        console.close()
        agent.close()


def words(wish: BootWish, ends: tuple[socket.socket, socket.socket]) -> list[str]:
    """The further words. A guest that resets itself ends: a TD cannot be reset."""
    console, agent = ends
    form = "qcow2" if wish.disk.endswith(".qcow2") else "raw"
    more = [
        "-no-reboot",
        *("-drive", f"if=none,id=disk0,file={wish.disk.replace(',', ',,')},format={form},snapshot=on"),
        *("-device", "virtio-blk-pci,drive=disk0,bootindex=1"),
        *("-chardev", f"socket,id=console,fd={console.fileno()}", "-serial", "chardev:console"),
    ]
    if wish.guest_agent:
        more += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={agent.fileno()}"]
        more += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    return more
