"""A result is taken again only if nothing that it depends on has changed."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from plugin.tdx_module.guests import GUESTS, find_guest
from qmp_client.matrix import inputs
from qmp_client.matrix.inputs import Inputs
from qmp_client.negotiation.wish import Wish
from tests.matrix.results import cell


def of(qemu: Path, firmware: Path, **changes: str) -> str:
    inputs.contents.cache_clear()
    return Inputs(firmware, Wish()).of(replace(cell(qemu=str(qemu)), **changes))


def test_each_input_counts(tmp_path: Path) -> None:
    qemu, firmware, platform = tmp_path / "qemu", tmp_path / "tdvf", tmp_path / "platform.json"
    for path in (qemu, firmware, platform):
        path.write_bytes(b"one")
    first = of(qemu, firmware)
    assert of(qemu, firmware) == first, "the same inputs"
    others = {axis: of(qemu, firmware, **{axis: "other"}) for axis in ("cpu", "machine", "smp", "module", "kvm")}
    from_file = of(qemu, firmware, platform=str(platform))
    qemu.write_bytes(b"two")
    other_qemu = of(qemu, firmware)
    firmware.write_bytes(b"two")
    other_firmware = of(qemu, firmware)
    qemu.write_bytes(b"one")
    firmware.write_bytes(b"one")
    platform.write_bytes(b"two")
    other_platform = of(qemu, firmware, platform=str(platform))
    minimal = Inputs(firmware, Wish(policy="minimal")).of(cell(qemu=str(qemu)))
    seen = {Inputs(firmware, Wish(), find_guest(name)).of(cell(qemu=str(qemu))) for name in (*GUESTS, "reduce-ve")}
    assert len(seen) == len(GUESTS) + 1
    keys = [first, *others.values(), from_file, other_qemu, other_firmware, other_platform, minimal]
    assert len(set(keys)) == len(keys)
