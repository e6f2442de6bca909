"""QEMU's property names in the table, against a real QEMU's own idea of which bit each one is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from plugin.cpuid import Bit, Leaf
from plugin.cpuid.fields import all_fields
from tests.e2e.release import release
from tests.waiting import PATIENCE

KVM_FEATURES = 0x40000001  # QEMU clears this word unless it runs on KVM
CPU = "/machine/unattached/device[0]"

FIELDS = [
    field
    for field in all_fields()
    if field.qemu_name and field.width == 1 and field.leaf != KVM_FEATURES and field.qemu_name != "kvmclock"
]
NAMES = sorted({field.qemu_name for field in FIELDS})


def feature_words(qemu: Path, firmware: Path, cpu: str) -> dict[tuple[int, int | None, str], int]:
    """Every feature word of a CPU under TCG: what it has, and what was asked for and filtered out."""
    commands: list[dict[str, Any]] = [{"execute": "qmp_capabilities"}]
    for name in ("feature-words", "filtered-features"):
        commands.append({"execute": "qom-get", "arguments": {"path": CPU, "property": name}, "id": name})
    commands.append({"execute": "quit"})
    arguments = ["-S", "-nodefaults", "-display", "none", "-machine", "q35", "-accel", "tcg", "-bios", str(firmware)]
    # A real file as standard input would end too early: QEMU drops a QMP client whose input has ended.
    process = subprocess.Popen(
        [qemu, *arguments, "-cpu", cpu, "-qmp", "stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n".join(json.dumps(command) for command in commands) + "\n")
    process.stdin.flush()
    words: dict[tuple[int, int | None, str], int] = {}
    answered = 0
    for line in process.stdout:
        message = json.loads(line)
        if "id" in message:
            answered += 1
            for word in message["return"]:
                key = (word["cpuid-input-eax"], word.get("cpuid-input-ecx"), word["cpuid-register"].lower())
                words[key] = words.get(key, 0) | word["features"]
    process.stdin.close()
    process.wait(PATIENCE)
    assert answered == 2, f"QEMU did not take -cpu {cpu}"
    return words


def test_each_property_is_the_bit_the_table_says(qemu: Path, tmp_path: Path) -> None:
    """Give every name a number, and start QEMU once per binary digit with the names whose number has it."""
    if release(qemu) < (10, 2):
        pytest.skip("this QEMU has no name yet for some of the bits")
    firmware = tmp_path / "empty.bin"
    firmware.write_bytes(bytes(65536))
    number = {name: n for n, name in enumerate(NAMES, start=1)}
    seen: dict[Bit, int] = {}
    for digit in range(len(NAMES).bit_length()):
        switches = [f"{name}={'on' if number[name] >> digit & 1 else 'off'}" for name in NAMES]
        words = feature_words(qemu, firmware, ",".join(["base", "pmu=on", *switches]))
        for (leaf, subleaf, register), word in words.items():
            for position in range(32):
                if word >> position & 1:
                    bit = Bit(Leaf(leaf, subleaf), register, position)  # type: ignore[arg-type]
                    seen[bit] = seen.get(bit, 0) | 1 << digit
    wrong = {field.qemu_name: seen.get(field.bits()[0]) for field in FIELDS}
    assert {name: code for name, code in wrong.items() if code != number[name]} == {}
