"""Every rule by the name under which a module version lists it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from plugin.cpuid import Registers
from plugin.tdx_module.draft import Draft
from plugin.tdx_module.errors import UnknownRule
from plugin.tdx_module.module import ModuleVersion
from plugin.tdx_module.rules import Setup, leaves, topology, ve_reduction
from plugin.tdx_module.rules.asking import Asking, Shown
from plugin.typing import NamedTuple, TypeAlias

ApplyToLeaf: TypeAlias = "Callable[[Setup, Draft], None]"
ApplyToTable: TypeAlias = "Callable[[Setup], None]"


class LeafRule(NamedTuple):
    """Runs right after each of its leaves was computed from the module's table."""

    apply: ApplyToLeaf
    numbers: tuple[int, ...] = ()
    """The leaves it is about; none = every leaf."""


class TableRule(NamedTuple):
    """Runs once, after all leaves."""

    apply: ApplyToTable


class ExecutionRule(NamedTuple):
    """Is about what the CPUID instruction answers in the guest, as opposed to what is stored."""

    instead: Callable[[Asking], Registers | None]
    """Answers a leaf of which the TD holds no value; None = #VE."""
    shown: Callable[[Asking, Registers], Iterable[Shown]]
    """What of a leaf is not as the TD holds it."""


Rule: TypeAlias = "LeafRule | TableRule | ExecutionRule"

RULES: Mapping[str, Rule] = {
    "family/model": LeafRule(leaves.family_model, (0x1,)),
    "xfam": LeafRule(leaves.xfam_gates),
    "monitor": LeafRule(leaves.monitor, (0x5,)),
    "tsx": LeafRule(leaves.tsx, (0x7,)),
    "pks": LeafRule(leaves.pks, (0x7,)),
    "key-locker": LeafRule(leaves.key_locker, (0x7, 0x19)),
    "lass": LeafRule(leaves.lass, (0x7,)),
    "perfmon": LeafRule(leaves.perfmon, (0xA,)),
    "perfmon-extended": LeafRule(leaves.perfmon_extended, (0x23,)),
    "perfmon-subleaves": LeafRule(leaves.perfmon_subleaves, (0x23,)),
    "xsave-size": LeafRule(leaves.xsave_size, (0xD,)),
    "xfd": LeafRule(leaves.xfd, (0xD,)),
    "xsave-component": LeafRule(leaves.xsave_component, (0xD,)),
    "processor-trace": LeafRule(leaves.processor_trace, (0x14,)),
    "lbr": LeafRule(leaves.lbr, (0x1C,)),
    "amx-tile": LeafRule(leaves.amx_tile, (0x1D,)),
    "tsc": LeafRule(leaves.tsc, (0x15,)),
    "hybrid": LeafRule(leaves.hybrid, (0x1A,)),
    "linear-width": LeafRule(leaves.linear_width, (0x80000008,)),
    "physical-width": LeafRule(leaves.physical_width, (0x80000008,)),
    "topology": TableRule(topology.topology),
    "topology-levels": TableRule(topology.topology_levels),
    "ve-reduction": ExecutionRule(ve_reduction.instead, ve_reduction.shown),
}


def rules_of(module: ModuleVersion) -> list[Rule]:
    """Return a version's rules in the order they apply. Raises UnknownRule for a name that is not in the table."""
    for name in module.rules:
        if name not in RULES:
            raise UnknownRule(module.name, name, RULES)
    return [RULES[name] for name in module.rules]


def leaf_rules(module: ModuleVersion) -> Mapping[int | None, tuple[ApplyToLeaf, ...]]:
    """Sort a version's leaf rules by leaf number; None holds those about every leaf, applied in listed order too."""
    chosen = [rule for rule in rules_of(module) if isinstance(rule, LeafRule)]
    numbers = {number for rule in chosen for number in rule.numbers}
    by_number: dict[int | None, tuple[ApplyToLeaf, ...]] = {
        number: tuple(rule.apply for rule in chosen if not rule.numbers or number in rule.numbers) for number in numbers
    }
    by_number[None] = tuple(rule.apply for rule in chosen if not rule.numbers)
    return by_number


def table_rules(module: ModuleVersion) -> list[ApplyToTable]:
    """Return what a version runs after all leaves."""
    return [rule.apply for rule in rules_of(module) if isinstance(rule, TableRule)]


def execution_rules(module: ModuleVersion) -> list[ExecutionRule]:
    """Return a version's rules about the CPUID instruction."""
    return [rule for rule in rules_of(module) if isinstance(rule, ExecutionRule)]
