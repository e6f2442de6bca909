"""CPU models: what each name of ``-cpu help`` stands for, before anything of the host is applied to it."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from plugin.cpuid import REGISTERS, Registers
from plugin.qemu.request.errors import UnknownModel
from plugin.qemu.request.words import SERIES, Word, Words, read

HOST_MODELS = ("host", "max")
"""Models that are what KVM supports on the host's processor; they are the same but for the name."""


class Cache(NamedTuple):
    """One cache: its sub-leaf of leaf 4 without the topology's fields, and the topology level that shares it."""

    registers: Registers
    shared: str
    """``core``, ``module``, ``die`` or ``socket``."""
    extended: int
    """0x80000006 ECX, for the L2 cache."""


Caches = tuple[Cache, ...]
"""L1 data, L1 instruction, L2 and L3."""


class Model(NamedTuple):
    """A model of its own, such as SapphireRapids-v2."""

    family: int
    model: int
    stepping: int
    model_id: str
    avx10_version: int
    min_level: int
    min_xlevel: int
    words: Words
    caches: Caches


@lru_cache(maxsize=2)
def _content(series: str) -> Any:
    return read(series, "models.json")


def model_names(series: str = SERIES) -> tuple[str, ...]:
    """The names that ``-cpu help`` lists, in its alphabet, and the host's."""
    return (*_content(series)["models"], *HOST_MODELS)


def legacy_caches(series: str = SERIES) -> Caches:
    """The caches of models that bring none, as of ``host``."""
    return _caches(_content(series)["caches"]["legacy"])


def load_model(name: str, series: str = SERIES) -> Model:
    """Load a model. Raises UnknownModel with the known names."""
    models: Mapping[str, Any] = _content(series)["models"]
    if name not in models:
        raise UnknownModel(name, model_names(series))
    row = models[models[name].get("same-as", name)]
    return Model(
        row["family"],
        row["model"],
        row["stepping"],
        row["model-id"],
        row["avx10-version"],
        row["min-level"],
        row["min-xlevel"],
        {Word.parse(word): int(value, 16) for word, value in row["words"].items()},
        _caches(_content(series)["caches"][row["caches"]]),
    )


def _caches(rows: list[dict[str, str]]) -> Caches:
    return tuple(
        Cache(
            Registers(*(int(row[register], 16) for register in REGISTERS)),
            row["shared"],
            int(row.get("0x80000006.ecx", "0"), 16),
        )
        for row in rows
    )
