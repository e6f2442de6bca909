"""Why there is no request: QEMU would refuse the command line, or its effect is not modelled here."""

from collections.abc import Sequence


class Unpredictable(Exception):
    """An option whose effect on CPUID is not modelled; only a real QEMU can tell."""


class Refused(Exception):
    """QEMU would end with this complaint."""


class UnknownModel(Refused):
    """QEMU has no CPU model of this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"QEMU has no CPU model {name}")
        self.name = name
        self.known = tuple(known)


class UnknownFeature(Refused):
    """QEMU's CPU models have no feature of this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"QEMU's CPU models have no feature {name}")
        self.name = name
        self.known = tuple(known)
