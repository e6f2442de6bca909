"""What makes a deviation go away, in one short sentence each. Pure."""

from __future__ import annotations

import re

from plugin.tdx_module.reach import XFAM_GROUPS
from qmp_client.reconcile.classes import Case, Deviation
from qmp_client.reconcile.verdict import Kind
from qmp_client.reconcile.words import Word

NOBODY = "no VMM can"
AT_FAULT = f"{NOBODY}: the module gives every vCPU the same, so KVM or the module is at fault"
BY_FEATURE = {"monitor": "monitor"}
"""Rules of the module that leave a leaf in place with a feature of ``-cpu``."""
_XFAM = re.compile(r"xfam\[(\d+)\]")
_RULE = re.compile(r"module-rule: ([\w-]+)")


def mend(kind: Kind, deviation: Deviation, case: Case) -> str:
    """Say what to do about one deviation."""
    field, got, word = deviation.field, deviation.got, deviation.word
    if kind is Kind.BROKEN_WORD and word is not None:
        ways = [_without(word, deviation, case)]
        if deviation.by_guest:
            ways.append(f"let the guest set {deviation.by_guest}")
        elif got is not None:
            ways += _by_state(deviation, case)
            version = case.judge.since(deviation.leaf, field, deviation.wanted)
            ways += [f"use module >= {version}"] if version else []
        return ", or ".join(ways)
    if deviation.by_guest:
        return f"{NOBODY}: the guest has to set {deviation.by_guest}"
    if got is None or kind is Kind.ARCHITECTURAL:
        return NOBODY
    ways = _by_state(deviation, case)
    if field.width == 1 and field.qemu_name:
        ways.append(f"add {'+' if got else '-'}{field.qemu_name}")
    elif (rule := _RULE.search(deviation.cause)) and rule[1] in BY_FEATURE:
        ways.append(f"add +{BY_FEATURE[rule[1]]}")
    return ", or ".join(ways) or f"choose another {deviation.where} (--choose FILE)"


def _without(word: Word, deviation: Deviation, case: Case) -> str:
    """Take back what was said."""
    field, got = deviation.field, deviation.got
    if not word.of_cpu:
        return f"drop {word.text}" if word.text.startswith("--") else f"take {deviation.where} out of {word.text}"
    if field.width == 1 and field.qemu_name and (field.kvm_critical or case.words.enforce):
        # Without the word the model's own would be held against the TD.
        return f"say {'+' if got else '-'}{field.qemu_name} in place of {word.text}"
    return f"drop {word.text}"


def _by_state(deviation: Deviation, case: Case) -> list[str]:
    """Give the TD the state that a feature needs, where QEMU passed the feature on and the state can be had."""
    field, gate = deviation.field, _XFAM.search(deviation.cause)
    passed = case.evidence.requested.get(deviation.leaf)
    if not gate or field.width > 1 or not deviation.wanted or passed is None or not field.extract(passed):
        return []
    group = next((group for group in XFAM_GROUPS if group >> int(gate[1]) & 1), 1 << int(gate[1]))
    if group & ~case.judge.states():
        return []
    numbers = [str(n) for n in range(group.bit_length()) if group >> n & 1]
    return [f"set XFAM bit{'s' * (len(numbers) > 1)} {', '.join(numbers)} (--xfam)"]
