"""``-cpu``: a model's name, then features and properties, as QEMU reads them (x86_cpu_parse_featurestr)."""

from typing import NamedTuple

from plugin.qemu.request.errors import Refused, UnknownFeature, Unpredictable
from plugin.qemu.request.words import Features

_ON = ("on", "yes", "true", "y")
_OFF = ("off", "no", "false", "n")

NUMBERS = {
    "family": 0xFF + 0xF,
    "model": 0xFF,
    "stepping": 0xF,
    "level": 0xFFFFFFFF,
    "xlevel": 0xFFFFFFFF,
    "min-level": 0xFFFFFFFF,
    "min-xlevel": 0xFFFFFFFF,
    "phys-bits": 0xFFFFFFFF,
    "host-phys-bits-limit": 0xFF,
}
"""Properties that are numbers, with the greatest that QEMU takes."""

SWITCHES = ("host-phys-bits", "migratable", "kvm", "l3-cache", "cpuid-0xb", "check")
"""Switches that are no features. ``check`` changes what QEMU says, not what it does."""

TEXTS = ("model-id",)

CHANGING = ("cpuid-0xb", "l3-cache", "full-cpuid-auto-level", "pmu", "legacy-multi-node", "xen-vapic")
"""Properties outside of the feature words that CPUID depends on nevertheless."""


class Option(NamedTuple):
    """A ``-cpu`` option. QEMU applies ``switches`` first, then what begins with +, then what begins with -."""

    model: str
    switches: tuple[tuple[str, bool], ...]
    """``feature=on``, ``feature=off`` and plain ``feature``."""
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    values: dict[str, int | str | bool]
    """The other properties."""


def parse(text: str, features: Features) -> Option:
    """Read a ``-cpu`` option.

    Raises UnknownFeature, Refused for a value that QEMU does not take, and Unpredictable for a property whose effect
    is not modelled.
    """
    model, *words = [word for word in text.split(",") if word] or [""]
    switches: list[tuple[str, bool]] = []
    plus: list[str] = []
    minus: list[str] = []
    values: dict[str, int | str | bool] = {}
    for word in words:
        if word[0] in "+-":
            name = word[1:]
            _check_switch(name, features, word)
            (plus if word[0] == "+" else minus).append(name)
            continue
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if name in NUMBERS:
            values[name] = _number(name, value)
        elif name in TEXTS:
            values[name] = value
        elif name in SWITCHES:
            values[name] = _switch(word, value if equals else "on")
        elif name == "pmu":
            _switch(word, value if equals else "on")  # a TD has its own say after this
        else:
            _check_switch(name, features, word)
            switches.append((name, _switch(word, value if equals else "on")))
    return Option(model, tuple(switches), tuple(plus), tuple(minus), values)


def _check_switch(name: str, features: Features, word: str) -> None:
    if name in features.features or (name in features.elsewhere and name not in (*CHANGING, *SWITCHES)):
        return
    if name in CHANGING or name in SWITCHES or name in NUMBERS or name in TEXTS or _is_property(name):
        raise Unpredictable(f"{word}: what this property does is not modelled")
    raise UnknownFeature(name, sorted(features.features))


def _is_property(name: str) -> bool:
    return name.startswith(("hv-", "x-", "min-", "legacy-", "host-", "vmx-")) or name in OTHER_PROPERTIES


OTHER_PROPERTIES = (
    "vendor", "tsc-freq", "tsc-frequency", "tsc-khz", "ucode-rev", "level-func7", "xlevel2", "avx10-version", "enforce",
    "guest-phys-bits", "lbr-fmt", "lbr_fmt", "apic-id", "node-id", "socket-id", "die-id", "module-id", "core-id",
    "thread-id", "xen-vapic", "realized", "hotplugged", "start-powered-off", "kvm-no-smi-migration", "lmce",
    "vmware-cpuid-freq", "tcg-cpuid", "unavailable-features", "memory", "crash-information",
)  # fmt: skip
"""Properties of QEMU's CPUs that are known not to be features."""


def _switch(word: str, value: str) -> bool:
    if value in _ON:
        return True
    if value in _OFF:
        return False
    raise Refused(f"{word}: takes on or off")


def _number(name: str, value: str) -> int:
    try:
        number = int(value, 0)
    except ValueError as error:
        raise Unpredictable(f"{name}={value}: not a plain number") from error
    if not 0 <= number <= NUMBERS[name]:
        raise Refused(f"{name}={value}: at most {NUMBERS[name]} is possible")
    return number
