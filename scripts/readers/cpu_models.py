"""Reads QEMU's CPU models, feature bits and cache models over QMP, under the simulated KVM.

Features: for each property a CPU with it and one without it are plugged, whose feature words differ in its bits.
Models: a CPU's feature words before filtering are what it has and what was filtered out. Caches: leaf 4 with a
topology in which each sharing level has another number of threads.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

DATA = Path(__file__).parents[2] / "plugin" / "qemu" / "request" / "data"
CPU = "/machine/unattached/device[0]"

Words = dict[str, int]

NO_FEATURES = ("enforce", "x-", "hv-", "kvm", "realized", "hotplugged", "hotpluggable", "legacy-cache", "start-powered")
"""Properties that are no features and would change or refuse the CPU; a trailing dash makes it a prefix."""

MODEL = "qemu64"
"""The model whose features are switched one by one; any with an APIC will do."""

CPUS = 240
"""How many CPUs are plugged into one QEMU."""

COMPUTED = ("0xd.0.eax", "0xd.0.edx", "0xd.1.ecx", "0xd.1.edx")
"""Feature words that QEMU computes from the others."""

DEPENDED_ON = ("svm", "sgx", "intel-pt", "lkgs")
"""Features without which QEMU forgets others, which are part of a model nevertheless."""

SHARING = {1: "core", 3: "module", 7: "die", 15: "socket"}
"""The highest thread id that shares a cache, with two of each topology level."""
SHARING_SMP = "16,sockets=1,dies=2,modules=2,cores=2,threads=2"


class Execute(Protocol):
    """Runs one QMP command and returns its answer."""

    def __call__(self, command: str, **arguments: Any) -> Any:
        """Raise RuntimeError when QEMU refuses or has ended."""


@contextmanager
def running(qemu: str, *options: str) -> Iterator[Execute]:
    """Start QEMU under the simulated KVM and talk to it."""
    simulated = [sys.executable, "-m", "qmp_client.cli.entry", "sim", "--"]
    process = subprocess.Popen(
        [*simulated, qemu, "-S", "-nodefaults", "-display", "none", "-accel", "kvm", "-qmp", "stdio", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None

    def execute(command: str, **arguments: Any) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            message = json.loads(line)
            if "error" in message:
                raise RuntimeError(f"{command} {arguments}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
        raise RuntimeError(f"QEMU ended at {command} {arguments}: {complaints.result()}")

    with process, ThreadPoolExecutor(1) as drain:
        complaints = drain.submit(process.stderr.read)
        execute("qmp_capabilities")
        yield execute
        execute("quit")


def machine(firmware: str, cpu: str, smp: str = "1") -> list[str]:
    """A plain VM: options of its command line."""
    return ["-machine", "q35,kernel-irqchip=split", "-cpu", cpu, "-smp", smp, "-bios", firmware]


def words_of(execute: Execute, path: str) -> Words:
    """Every feature word as asked for: what the CPU has, and what was filtered out."""
    words: Words = {}
    for name in ("feature-words", "filtered-features"):
        for word in execute("qom-get", path=path, property=name):
            subleaf = f".{word['cpuid-input-ecx']}" if "cpuid-input-ecx" in word else ""
            key = f"{word['cpuid-input-eax']:#x}{subleaf}.{word['cpuid-register'].lower()}"
            words[key] = words.get(key, 0) | word["features"]
    return words


def read_features(qemu: str, firmware: str) -> dict[str, Any]:
    """Which property is which bits of which feature word, and which properties are in no word of CPUID."""
    with running(qemu, *machine(firmware, MODEL)) as execute:
        listed = execute("qom-list", path=CPU)
        words = words_of(execute, CPU)
    names = sorted(p["name"] for p in listed if p["type"] == "bool" and not _no_feature(p["name"]))
    found: dict[str, dict[str, str]] = {}
    for first in range(0, len(names), CPUS // 2):
        some = names[first : first + CPUS // 2]
        with running(qemu, *machine(firmware, MODEL, f"1,sockets={CPUS + 1},maxcpus={CPUS + 1}")) as execute:
            for n, name in enumerate(some):
                on, off = (_with(execute, MODEL, 2 * n + value, {name: bool(value)}) for value in (1, 0))
                bits = {word: hex(on[word] & ~off[word]) for word in on if on[word] != off[word]}
                if bits.keys() - set(COMPUTED):
                    found[name] = {word: mask for word, mask in bits.items() if word not in COMPUTED}
    return {
        "words": sorted(words, key=_order),
        "features": found,
        "elsewhere": [name for name in names if name not in found],
    }


def _with(execute: Execute, model: str, number: int, properties: dict[str, bool]) -> Words:
    """The feature words of one more CPU with these properties; numbers count from 0."""
    place = {"socket-id": number + 1, "core-id": 0, "thread-id": 0}  # sockets of one thread: no HT of the machine's
    properties = {"pmu": True} | properties  # QEMU clears PDCM without it
    execute("device_add", driver=f"{model}-x86_64-cpu", id=f"cpu{number}", **place, **properties)
    return words_of(execute, f"/machine/peripheral/cpu{number}")


def _no_feature(name: str) -> bool:
    return any(name.startswith(word) if word.endswith("-") else name == word for word in NO_FEATURES)


def _order(word: str) -> tuple[int, ...]:
    leaf, *rest = word.split(".")
    return int(leaf, 16), int(rest[0]) if len(rest) > 1 else 0, ("eax", "ebx", "ecx", "edx").index(rest[-1])


def read_model(qemu: str, firmware: str, name: str, features: dict[str, Any]) -> dict[str, Any]:
    """One model before anything about the host is applied to it."""
    low = [f for f, bits in features["features"].items() if "0x7.0.ebx" in bits]
    with running(
        qemu, *machine(firmware, f"{name},full-cpuid-auto-level=off,pmu=on", "1,sockets=3,maxcpus=3")
    ) as execute:

        def get(name: str, path: str = CPU) -> Any:
            return execute("qom-get", path=path, property=name)

        words = words_of(execute, CPU)
        model: dict[str, Any] = {
            key: get(key) for key in ("family", "model", "stepping", "model-id", "avx10-version", "min-xlevel")
        }
        legacy = get("legacy-cache")
        dependent = _with(execute, name, 0, dict.fromkeys(DEPENDED_ON, True))
        _with(execute, name, 1, dict.fromkeys(low, False))
        model["min-level"] = get("min-level", "/machine/peripheral/cpu1")
    asked = {(word, int(mask, 16)) for f in DEPENDED_ON for word, mask in features["features"][f].items()}
    for word, value in dependent.items():
        own = sum(mask for at, mask in asked if at == word)
        words[word] = words.get(word, 0) | value & ~own
    model["words"] = {
        word: hex(words[word]) for word in sorted(words, key=_order) if words[word] and word not in COMPUTED
    }
    model["caches"] = "legacy" if legacy else read_caches(qemu, name)
    return model


def read_caches(qemu: str, name: str) -> list[dict[str, Any]]:
    """L1 data, L1 instruction, L2, L3: leaf 4 without what follows from the topology, and who shares it."""
    with running(
        qemu,
        *("-preconfig", "-machine", "q35,kernel-irqchip=split,confidential-guest-support=tdx0"),
        *("-object", "tdx-guest,id=tdx0,x-named-cpu-models=on"),
        *("-cpu", f"{name},host-phys-bits=on", "-smp", SHARING_SMP),
    ) as execute:
        entries = execute("x-query-tdx-requested-cpuid")["cpuid"]
    l2 = next(entry["ecx"] for entry in entries if entry["leaf"] == 0x80000006)
    caches = []
    for entry in entries:
        if entry["leaf"] == 4 and entry["eax"]:
            caches.append(
                {
                    "eax": hex(entry["eax"] & 0x3FFF),
                    "ebx": hex(entry["ebx"]),
                    "ecx": hex(entry["ecx"]),
                    "edx": hex(entry["edx"]),
                    "shared": SHARING[entry["eax"] >> 14 & 0xFFF],
                }
            )
    caches[2]["0x80000006.ecx"] = hex(l2)
    return caches


def model_names(qemu: str) -> list[str]:
    """What ``-cpu help`` lists, but for the models that take the host's processor."""
    listing = subprocess.run([qemu, "-cpu", "help"], capture_output=True, text=True, check=True).stdout
    models = listing.partition("Recognized CPUID flags")[0]
    return [
        line.split()[0]
        for line in models.splitlines()
        if line.startswith("  ") and line.split()[0] not in ("host", "max")
    ]


def main(qemu: str, series: str) -> None:
    """Write features.json and models.json."""
    target = DATA / series
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(1 << 16))  # never run
        file.flush()
        firmware = file.name
        features = read_features(qemu, firmware)
        (target / "features.json").write_text(_compact(features, "features"))
        names = model_names(qemu)
        with ThreadPoolExecutor(2) as pool:
            read = dict(
                zip(names, pool.map(lambda name: read_model(qemu, firmware, name, features), names), strict=True)
            )
        caches: dict[str, Any] = {"legacy": read_caches(qemu, "qemu64")}
    for name, model in read.items():
        if model["caches"] != "legacy":
            known = next((old for old, value in caches.items() if value == model["caches"]), name)
            caches[known], model["caches"] = model["caches"], known
    models: dict[str, Any] = {}
    for name in sorted(read, key=lambda name: (name.rpartition("-v")[2].isdigit() is False, name)):
        same = next((old for old, model in models.items() if model == read[name]), None)
        models[name] = {"same-as": same} if same else read[name]
    (target / "models.json").write_text(_compact({"caches": caches, "models": dict(sorted(models.items()))}, "models"))


def _compact(content: dict[str, Any], rows: str) -> str:
    """JSON with one row of the large table on each line."""
    table = ",\n".join(f"  {json.dumps(key)}: {json.dumps(row)}" for key, row in content[rows].items())
    rest = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items() if key != rows]
    return "{\n" + ",\n".join([*rest, f" {json.dumps(rows)}: {{\n{table}\n }}"]) + "\n}\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
