"""One TD, from ``-cpu`` to a report.

QEMU is started before most of the program is loaded: its own start and the loading then run side by side. So what is
imported at the top of this module delays QEMU, and everything that comes after the start is in ``negotiated``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from plugin.tdx_module.guests import LINUX, Guest
from qmp_client.negotiation.setup import Setup, start
from qmp_client.negotiation.wish import Wish
from qmp_client.qemu import firmware, locate, which_kvm
from qmp_client.qemu.command_line import Machine

if TYPE_CHECKING:
    from qmp_client.report.policy import Criteria


class Request(NamedTuple):
    """What ``negotiate`` was asked."""

    cpu: str
    smp: str
    machine_type: str
    memory: str
    qemu: str | None
    stock: bool
    firmware_file: Path | None
    qmp_socket: str | None
    kvm: which_kvm.Words
    choose: str
    attributes: str | None
    xfam: str | None
    guest: str
    fail_on: str | None
    expect: Path | None
    form: str
    everything: bool
    timeout: float
    own: tuple[str, ...]


def run(request: Request) -> int:
    """Negotiate and report.

    Raises UsageError and MissingError before anything is started, for words that are wrong and for what this machine
    lacks; a TdxCpuidError that says which step failed, with QEMU's last lines.
    """
    # Wrong words are found before anything is started. These cannot be wrong, and need not wait for what judges.
    certain = request.expect is None and request.fail_on in (None, "none")
    criteria = None if certain else _criteria(request)
    guest = _guest(request)
    setups, additions = ([], ()) if request.qmp_socket is not None else _setups(request, guest)
    children = [start(setup) for setup in setups]
    from qmp_client.use_cases import negotiated  # noqa: PLC0415  QEMU starts meanwhile

    if request.qmp_socket is not None:
        reports = negotiated.attached(request.qmp_socket, request.cpu, request.timeout, guest)
    else:
        reports = negotiated.reports(children, setups, request.form)
    for report in reports:
        report.notes[:0] = additions
    return negotiated.conclude(reports, criteria or _criteria(request), request.form, everything=request.everything)


def _setups(request: Request, guest: Guest) -> tuple[list[Setup], tuple[str, ...]]:
    """The TD, or one on each of KVM's interfaces; and what was added to the user's own command line."""
    kvms = which_kvm.find_kvms(request.kvm)
    own = None
    additions: tuple[str, ...] = ()
    if request.own:
        from qmp_client.qemu.adopt import adopt  # noqa: PLC0415  for few, and QEMU waits

        line = adopt(request.own, request.firmware_file, patched=not request.stock)
        machine, own, additions = line.machine, line.arguments, line.additions
    else:
        machine = Machine(
            locate.find_qemu(request.qemu),
            firmware.find_firmware(request.firmware_file),
            request.cpu,
            request.smp,
            request.memory,
            request.machine_type,
            request.stock,
        )
    wish = _wish(request)
    return [Setup(machine, kvm, wish, request.timeout, guest=guest, own=own) for kvm in kvms], additions


def _guest(request: Request) -> Guest:
    """A wrong name is found before anything is started; the default is none."""
    if request.guest == LINUX.name:
        return LINUX
    from qmp_client.names import a_guest  # noqa: PLC0415  for few, and QEMU waits

    return a_guest(request.guest)


def _wish(request: Request) -> Wish:
    """Contradictions are found before anything is started; the plain case has none and need not wait."""
    words = request.choose, request.attributes, request.xfam
    if words == ("model", None, None):
        return Wish()
    from qmp_client.negotiation.understand import understand  # noqa: PLC0415  for few, and QEMU waits

    return understand(*words)


def _criteria(request: Request) -> Criteria:
    from qmp_client.report.criteria import criteria_of  # noqa: PLC0415  for few, and QEMU waits

    return criteria_of(request.fail_on, request.expect)
