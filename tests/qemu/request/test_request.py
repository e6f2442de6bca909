"""The rules by which QEMU builds what it asks for, on the simulated hosts. That they are QEMU's, tests/e2e shows."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from plugin.cpuid import REGISTERS, ZERO, Leaf
from plugin.kvm.device.simulated import SimulatedKvm
from plugin.qemu.request import Host, Refused, Request, UnknownFeature, UnknownModel, Unpredictable, build
from plugin.qemu.request.models import load_model, model_names
from plugin.qemu.request.topology import MAX_CPUS
from plugin.qemu.request.words import Word, load_features
from plugin.tdx_module import load_host, module_names, platform_names
from qmp_client.predict.predict import host_of

FEATURES = load_features()
NAMES = sorted(FEATURES.features)
PLATFORMS = [name for name in platform_names() if name != "native"]


@lru_cache
def host(module: str = "1.5.05", platform: str = "emerald-rapids") -> Host:
    found = load_host(module, platform)
    return host_of(SimulatedKvm(found))


def bit(request: Request, feature: str) -> bool:
    return any(request.cpuid.get(word.leaf, ZERO).get(word.register) & mask for word, mask in FEATURES.bits(feature))


hosts = st.builds(host, st.sampled_from(module_names()), st.sampled_from(PLATFORMS))
switched = st.lists(st.tuples(st.sampled_from("+-"), st.sampled_from(NAMES)), max_size=12)
models = st.sampled_from(model_names())


def option(model: str, switches: list[tuple[str, str]]) -> str:
    return ",".join([model, *(sign + name for sign, name in switches)])


@settings(deadline=None)
@given(models, switched, hosts)
def test_what_is_dropped_is_not_built(model: str, switches: list[tuple[str, str]], host: Host) -> None:
    request = build(option(model, switches), "2", host)
    for leaf, dropped in request.dropped.items():
        assert request.cpuid.get(leaf, ZERO) & dropped == ZERO, leaf


@settings(deadline=None)
@given(models, switched, hosts)
def test_nothing_is_built_that_is_not_supported(model: str, switches: list[tuple[str, str]], host: Host) -> None:
    request = build(option(model, switches), "1", host)
    for word in FEATURES.words:
        excess = request.cpuid.get(word.leaf, ZERO).get(word.register) & ~request.cpu.supported.words[word]
        if word != Word(Leaf(0x24, 0), "ebx"):  # holds AVX10's version, too
            assert not excess, word


@settings(deadline=None)
@given(models, switched, hosts)
def test_what_is_switched_off_is_not_asked_for(model: str, switches: list[tuple[str, str]], host: Host) -> None:
    """QEMU applies - after +, so the last word is always -'s."""
    request = build(option(model, switches), "1", host)
    for name in {name for sign, name in switches if sign == "-"}:
        for word, mask in FEATURES.bits(name):
            asked = request.cpuid.get(word.leaf, ZERO) | request.dropped.get(word.leaf, ZERO)
            assert not asked.get(word.register) & mask, name


@settings(deadline=None)
@given(models, switched, hosts)
def test_xfam_is_what_leaf_d_says_and_what_kvm_supports(
    model: str, switches: list[tuple[str, str]], host: Host
) -> None:
    request = build(option(model, switches), "1", host)
    assert request.xfam & ~host.xfam == 0
    assert request.cpuid.get(Leaf(0xD, 0), ZERO).eax == request.xfam
    for number in range(2, 63):
        assert (Leaf(0xD, number) in request.cpuid) == bool(request.xfam >> number & 1)


@settings(deadline=None)
@given(st.lists(st.sampled_from(NAMES), max_size=8, unique=True), hosts)
def test_switching_a_feature_of_host_touches_only_what_needs_it(names: list[str], host: Host) -> None:
    """What `host` has without some features is less than what it has, feature by feature."""
    less, all_of_it = build(option("host", [("-", name) for name in names]), "1", host), build("host", "1", host)
    for word in FEATURES.words:
        ours, theirs = (one.cpuid.get(word.leaf, ZERO).get(word.register) for one in (less, all_of_it))
        assert not ours & ~theirs, word


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 2))
def test_topology_leaves_agree(dies: int, modules: int, cores: int, threads: int, sockets: int) -> None:
    smp = f"sockets={sockets},dies={dies},modules={modules},cores={cores},threads={threads}"
    assume(sockets * dies * modules * cores * threads <= MAX_CPUS)
    request = build("host", smp, host())
    package = dies * modules * cores * threads
    assert request.vcpus == sockets * package
    levels = [registers for leaf, registers in request.cpuid.items() if leaf.number == 0x1F]
    assert len(levels) == 3 + (dies > 1) + (modules > 1)
    assert levels[-2].ebx == request.cpuid[Leaf(0xB, 1)].ebx == package
    assert 1 << levels[-2].eax >= package
    assert [level.eax for level in levels[:-1]] == sorted(level.eax for level in levels[:-1])
    addressable = request.cpuid[Leaf(1)].ebx >> 16 & 0xFF
    assert addressable == (min(1 << levels[-2].eax, 255) if package > 1 else 0)
    assert bit(request, "ht") == (package > 1)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("module", module_names())
def test_every_model_has_a_request(module: str, platform: str) -> None:
    for name in model_names():
        request = build(name, "1", host(module, platform))
        assert request.cpuid[Leaf(0)].eax >= 0x1F


def test_a_model_without_long_mode_keeps_its_own_width() -> None:
    request = build("486,host-phys-bits=on", "1", host())
    assert (request.cpu.physical_width, request.cpu.guest_width) == (32, 0)
    assert build("qemu32,host-phys-bits=on", "1", host()).cpu.physical_width == 36


def test_a_version_is_what_its_name_says() -> None:
    assert load_model("SapphireRapids") == load_model("SapphireRapids-v1")
    assert load_model("SapphireRapids-v1") != load_model("SapphireRapids-v3")


def test_avx512_gone_takes_its_states_along() -> None:
    with_it, without = build("host", "1", host()), build("host,-avx512f", "1", host())
    assert with_it.xfam & ~without.xfam == 0b111 << 5
    assert bit(without, "avx512bw"), "QEMU has no such dependency"


def test_explicit_features_that_lack_what_they_need_are_dropped_aloud() -> None:
    asked = build("host,+fred,-lkgs", "1", host())
    ((word, mask),) = FEATURES.bits("fred")
    assert asked.dropped[word.leaf].get(word.register) & mask


def test_migratable_off_takes_what_has_no_name() -> None:
    fewer, more = build("host", "1", host()), build("host,migratable=off", "1", host())
    for leaf, registers in fewer.cpuid.items():
        for register in REGISTERS:
            if Word(leaf, register) in FEATURES.words:
                assert not registers.get(register) & ~more.cpuid[leaf].get(register)


@pytest.mark.parametrize(
    ("cpu", "smp", "error", "said"),
    [
        ("SapphireRapid", "1", UnknownModel, "SapphireRapid"),
        ("host,+avx512", "1", UnknownFeature, "avx512"),
        ("host,-avx512_bf16", "1", UnknownFeature, "avx512_bf16"),
        ("host,avx=maybe", "1", Refused, "on or off"),
        ("host,phys-bits=20,host-phys-bits=off", "1", Refused, "phys-bits"),
        ("486,phys-bits=46", "1", Refused, "long mode"),
        ("Nehalem,migratable=off", "1", Refused, "migratable"),
        ("host,hv-relaxed", "1", Unpredictable, "hv-relaxed"),
        ("host,+pmu", "1", Unpredictable, "pmu"),
        ("host,vendor=AuthenticAMD", "1", Unpredictable, "vendor"),
        ("host,enforce", "1", Unpredictable, "enforce"),
        ("host", "0", Refused, "greater than 0"),
        ("host", "3,cores=2,threads=1,sockets=1", Refused, "multiply"),
        ("host", "cpus=2,drawers=2", Refused, "drawers"),
        ("host", "512", Unpredictable, "512"),
    ],
)  # fmt: skip
def test_what_has_no_request(cpu: str, smp: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        build(cpu, smp, host())
