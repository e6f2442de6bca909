"""`predict` against real QEMUs: a sample of the grid. `python -m tests.e2e.prediction` walks all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin.qemu.request.models import model_names
from plugin.qemu.request.words import load_features
from qmp_client.qemu.ending import cpu_models
from tests.e2e.prediction import Point, Refusal, differences, predicted, real
from tests.e2e.release import only_with_the_written_down

REPORTS = [
    *(Point("host", module=module) for module in ("1.5.01", "1.5.05", "1.5.34", "2.0.18", "future")),
    Point("max,migratable=off", "16,dies=2,modules=2,cores=2,threads=2", platform="granite-rapids"),
    Point("host,-avx512f,+waitpkg,pks=on", "sockets=2,cores=3,threads=1", "1.0.3", "sapphire-rapids"),
    Point("host,-xsave,-x2apic,kvm=off,host-phys-bits-limit=52"),
    Point("SapphireRapids", "2", choose="maximal"),
    Point("SapphireRapids-v4,-avx2,+svm,+sgx,+fred", platform="granite-rapids", choose="minimal"),
    Point("GraniteRapids-v2,-avx10-256", "4", "2.0.18", "granite-rapids"),
    Point("EPYC-Turin,+topoext", "threads=2", "1.5.34", "sapphire-rapids"),
    Point("YongFeng", "2"),
    Point("qemu64,+xstore,level=0x26,model-id=of one's own", xfam="0xe7"),
]

REFUSED = [
    Point("486"),
    Point("host", module="1.0"),  # whose TDs have no guest address width that KVM could be told
    Point("host,-lm"),
    Point("host,-mce"),
    Point("SapphireRapids,phys-bits=46", platform="granite-rapids"),
    Point("host", attributes="0x40000000"),
    Point("host", xfam="0x8007"),
    Point("no-such-model"),
    Point("host,+avx512"),
    Point("host,avx=maybe"),
    Point("host", "3,sockets=2"),
]


@pytest.fixture(autouse=True)
def _of_that_release(qemu: Path) -> None:
    only_with_the_written_down(qemu)


@pytest.mark.parametrize("point", REPORTS, ids=str)
def test_what_is_predicted_is_what_is(point: Point, qemu: Path, firmware: Path) -> None:
    assert not isinstance(predicted(point), Refusal)
    assert differences(point, qemu, firmware) == []


@pytest.mark.parametrize("point", REFUSED, ids=str)
def test_what_is_refused_is_predicted_to_be(point: Point, qemu: Path, firmware: Path) -> None:
    ours, theirs = predicted(point), real(point, qemu, firmware)
    assert isinstance(ours, Refusal)
    assert isinstance(theirs, Refusal)
    assert ours.exit_code == theirs.exit_code, (ours, theirs)


def test_the_rule_of_a_model_without_long_mode_is_the_same_sentence(qemu: Path, firmware: Path) -> None:
    ours, theirs = predicted(Point("pentium3")), real(Point("pentium3"), qemu, firmware)
    assert isinstance(ours, Refusal)
    assert isinstance(theirs, Refusal)
    assert ours.said.partition("TDX requires ")[2] == theirs.said.partition("TDX requires ")[2] != ""


def test_the_models_are_qemu_s(qemu: Path) -> None:
    assert sorted(model_names()) == sorted(cpu_models(qemu)), "scripts/read-cpu-models reads them anew"


def test_the_features_are_qemu_s(qemu: Path, firmware: Path) -> None:
    """All at once: a name that this QEMU does not have would be refused."""
    every = ",".join(f"-{name}" for name in sorted(load_features().features) if name not in ("lm", "i64", "mce", "mca"))
    assert differences(Point(f"host,{every}"), qemu, firmware) == []
