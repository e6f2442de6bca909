"""Which bits a TD could have otherwise under another VMM, whose choices a dump does not tell. Pure."""

from __future__ import annotations

from plugin.cpuid import ZERO, Bit, Leaf
from plugin.tdx_module import Controls, TdxHost
from plugin.tdx_module.classes import ALLOW, CONFIGURABLE, class_of
from plugin.tdx_module.guest import settled
from plugin.tdx_module.guests import Guest
from plugin.tdx_module.module import GuestRules
from plugin.tdx_module.rules.asking import REDUCE_VE
from qmp_client.observed.compare import Free

FOLLOWING = ("xfam", "attributes")
"""What follows a choice that is made elsewhere in TD_PARAMS."""
SIGNATURE = (Leaf(1), "eax")
"""Family, model and stepping: configurable, and refused unless they are the processor's."""


def of_any_vmm(host: TdxHost, guest: Guest) -> Free:
    """What the module on this processor lets any VMM show to this guest."""
    rules = host.module.guest
    controls = settled(rules, guest.controls)

    def free(bit: Bit, value: int) -> bool:
        kind = class_of(host.module, bit).kind
        if (bit.leaf, bit.register) == SIGNATURE or kind not in (CONFIGURABLE, ALLOW, *FOLLOWING):
            return False
        if _is_the_guests(bit, rules, controls):
            return False
        native = host.platform.native_leaf(bit.leaf).get(bit.register) >> bit.position & 1
        return kind == CONFIGURABLE or not value or bool(native)

    return free


def _is_the_guests(bit: Bit, rules: GuestRules, controls: Controls) -> bool:
    """Whether the guest's controls decide what it sees of a bit, whatever the TD holds."""
    if REDUCE_VE not in controls.td_ctls:
        return bit in rules.on_before
    gates = [gate for gate, bits in rules.gated.items() if bit in bits]
    native = rules.native.get(bit.leaf, ZERO).get(bit.register) >> bit.position & 1
    return bool(native) or any(gate not in controls.paravirt for gate in gates)
