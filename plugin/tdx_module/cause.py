"""Who decided one bit of a TD's CPUID, and why."""

from __future__ import annotations

from plugin.typing import NamedTuple


class Cause(NamedTuple):
    """The decision behind one bit.

    ``kind`` is one of
    ``configured``: the VMM's CPUID_CONFIG decided: config_direct, or allow_direct where the processor has the bit;
    ``native``: the processor's own value, nobody could choose;
    ``fixed-0``, ``fixed-1``: the module's table forces it;
    ``xfam``: the feature follows XFAM bit ``detail``, whichever value that gave;
    ``attributes``: it follows the TD's ATTRIBUTES bit named ``detail``;
    ``module-rule``: the special case named ``detail`` computed it;
    ``dynamic``: the module computes it each time the guest executes CPUID; the stored bit means nothing;
    ``ve``: no value; CPUID of this leaf raises #VE in the guest, until it sets the TD_CTLS bit ``detail`` if there is
    one;
    ``paravirt``: what the TD holds is not shown to a guest that has reduced #VE and left FEATURE_PARAVIRT_CTRL bit
    ``detail`` 0;
    ``td-ctls``: what the TD holds is not shown because of how the guest has TD_CTLS bit ``detail``.
    """

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        if self.kind == "xfam":
            return f"xfam[{self.detail}]"
        if self.kind in ("attributes", "paravirt", "td-ctls"):
            return f"{self.kind}.{self.detail}"
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


CONFIGURED = Cause("configured")
NATIVE = Cause("native")
FIXED_0 = Cause("fixed-0")
FIXED_1 = Cause("fixed-1")
DYNAMIC = Cause("dynamic")
VE = Cause("ve")
