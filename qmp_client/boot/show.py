"""A boot for people."""

from __future__ import annotations

from qmp_client.boot.model import Booted, Ending

WHERE = {"td": "in the TD", "emulated": "in plain emulation, not in a TD"}
ENDINGS = {
    Ending.ORDERLY: "it switched itself off when it was asked to",
    Ending.FORCED: "it did not switch itself off and was ended",
    Ending.BY_ITSELF: "it ended by itself",
}


def sentence(booted: Booted) -> str:
    """What became of the guest."""
    if not booted.up:
        return f"guest, {WHERE[booted.guest]}: {booted.why}"
    signs = [f"{booted.line.strip()!r} on its console"] if booted.line else []
    signs += [f"its agent {booted.agent} answered"] if booted.agent else []
    return (
        f"guest, {WHERE[booted.guest]}: up after {booted.seconds:.1f} s ({', '.join(signs)}); {ENDINGS[booted.ending]}"
    )
