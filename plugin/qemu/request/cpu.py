"""A vCPU's features on their way from the model to the leaves: expansion, then filtering (target/i386/cpu.c)."""

from plugin.cpuid import Leaf
from plugin.qemu.request import models
from plugin.qemu.request.errors import Refused, Unpredictable
from plugin.qemu.request.host import Host
from plugin.qemu.request.models import Caches
from plugin.qemu.request.option import Option
from plugin.qemu.request.supported import STATES, Supported
from plugin.qemu.request.topology import Topology
from plugin.qemu.request.words import Bits, Features, Word, Words, has_any, union

FIXED_LEVEL = 0x1F
"""Every TD gets leaf 0x1f, and with it at least this maximum leaf."""
AVX10_LEVEL = 0x24
_EXTENDED_FEATURES = 0x80000021

_KVM = Word(Leaf(0x40000001), "eax")
_AMD_MACHINE_CHECK = Word(Leaf(0x80000007), "ebx")
_FEATURES_21 = Word(Leaf(0x80000021), "eax")
_AVX10_VERSION = Word(Leaf(0x24, 0), "ebx")
_SUPERVISOR = (Word(Leaf(0xD, 1), "ecx"), Word(Leaf(0xD, 1), "edx"))
_COMPUTED = frozenset((*STATES, *_SUPERVISOR))
_NOT_IN_A_TD = ("intel-pt", "sgx", "svm")
"""Features that bring leaves of their own, which no TD can have."""


class Cpu:
    """X86CPU, as far as CPUID depends on it. Made expanded and filtered; the leaves are built from it."""

    words: Words
    dropped: Words
    """What was asked for and QEMU took away (filtered_features)."""
    version: int
    """Leaf 1 EAX: family, model and stepping."""
    model_id: str
    caches: Caches
    avx10_version: int
    level: int
    level_7: int
    xlevel: int
    xlevel2: int
    physical_width: int
    guest_width: int

    def __init__(self, features: Features, option: Option, topology: Topology, host: Host, series: str) -> None:
        """Go QEMU's way. Raises UnknownModel, Refused, Unpredictable."""
        self.features = features
        self.option = option
        self.topology = topology
        self.host = host
        self.supported = Supported(features, host)
        self.dropped = {}
        self._explicit: Words = {}
        """Bits that the user set or cleared (user_features)."""
        self._of_host = option.model in models.HOST_MODELS
        if "migratable" in option.values and not self._of_host:
            raise Refused(f"CPU model {option.model} has no property migratable")
        self._load(series)
        self._apply_option()
        self._expand()
        self._settle_levels()
        self._filter()
        self._settle_widths()

    def has(self, name: str) -> bool:
        """Whether the CPU has a feature, or any bit of several."""
        return has_any(self.words, self.features.bits(name))

    def _load(self, series: str) -> None:
        option = self.option
        if self._of_host:
            native = self.host.execute
            signature = native(1, 0).eax
            family = signature >> 8 & 0xF
            family += signature >> 20 & 0xFF if family == 0xF else 0
            model = (signature >> 4 & 0xF) | (signature >> 16 & 0xF) << 4
            stepping = signature & 0xF
            text = b"".join(
                value.to_bytes(4, "little")
                for number in (0x80000002, 0x80000003, 0x80000004)
                for value in native(number, 0)
            )
            self.model_id = text.partition(b"\0")[0].decode("latin-1")
            self.words, self.avx10_version, self.caches = {}, 0, models.legacy_caches(series)
            self._min_level = self.supported.value(Word(Leaf(0), "eax"))
            self._min_xlevel = self.supported.value(Word(Leaf(0x80000000), "eax"))
            self._min_xlevel2 = self.supported.value(Word(Leaf(0xC0000000), "eax"))
        else:
            named = models.load_model(option.model, series)
            family, model, stepping, self.model_id = named.family, named.model, named.stepping, named.model_id
            self.words, self.avx10_version, self.caches = dict(named.words), named.avx10_version, named.caches
            self._min_level, self._min_xlevel, self._min_xlevel2 = named.min_level, named.min_xlevel, 0
        values = option.values
        family, model, stepping = (
            int(values.get(name, own)) for name, own in (("family", family), ("model", model), ("stepping", stepping))
        )
        self.version = (
            (0xF00 | family - 0xF << 20 if family > 0xF else family << 8)
            | (model & 0xF) << 4
            | (model >> 4) << 16
            | stepping
        )
        self.model_id = str(values.get("model-id", self.model_id))
        self._min_level = int(values.get("min-level", self._min_level))
        self._min_xlevel = int(values.get("min-xlevel", self._min_xlevel))

    def _apply_option(self) -> None:
        bits = self.features.features
        for name, value in self.option.switches:
            self._switch(bits.get(name, ()), value)
        self._switch(bits["invtsc"], True)  # a TD's is fixed to 1 (tdx_cpu_instance_init)
        for name in self.option.plus:
            self._switch(bits.get(name, ()), True)
        for name in self.option.minus:
            self._switch(bits.get(name, ()), False)

    def _switch(self, bits: Bits, value: bool) -> None:
        for word, mask in bits:
            now = self.words.get(word, 0)
            self.words[word] = now | mask if value else now & ~mask
            self._explicit[word] = self._explicit.get(word, 0) | mask

    def _expand(self) -> None:
        """x86_cpu_expand_features."""
        rules = self.features.rules
        if self._of_host:
            self._take_what_is_supported()
        if self.topology.threads_per_package > 1:
            self._set("ht")
        for needed, bits in rules.dependencies:
            if has_any(self.words, needed):
                continue
            for word, mask in bits:
                lost = self.words.get(word, 0) & mask
                self._drop(word, lost & self._explicit.get(word, 0))
                self.words[word] = self.words.get(word, 0) & ~lost
        if self.option.values.get("kvm") is False:
            self.words[_KVM] = 0
        self._enable_states()

    def _take_what_is_supported(self) -> None:
        rules = self.features.rules
        migratable = self.option.values.get("migratable", True)
        named = union(self.features.features.values()) if migratable else {}
        for word in self.features.words:
            if word in _COMPUTED or word == _AMD_MACHINE_CHECK:
                continue
            supported = self.supported.words[word]
            if migratable:
                supported &= named.get(word, 0) & ~rules.not_migratable.get(word, 0)
            supported &= ~self._explicit.get(word, 0) & ~rules.not_automatic.get(word, 0)
            self.words[word] = self.words.get(word, 0) | supported
        if self.has("avx10") and not self.avx10_version:
            self.avx10_version = self.supported.value(_AVX10_VERSION) & 0xFF

    def _set(self, name: str) -> None:
        for word, mask in self.features.bits(name):
            self.words[word] = self.words.get(word, 0) | mask

    def _enable_states(self) -> None:
        """x86_cpu_enable_xsave_components: a state for each feature that has one and whose state can be had."""
        possible = self.supported.words[STATES[0]] | self.supported.words[STATES[1]] << 32
        self.states = {
            number: size for number, _, size in self.features.rules.states if number < 2 or possible >> number & 1
        }
        """Sizes in bytes of the state components that QEMU may use."""
        enabled = 0
        if self.has("xsave"):
            for number, bits, _ in self.features.rules.states:
                avx512_by_avx10 = bits == self.features.bits("avx512f") and self.has("avx10")
                if number in self.states and (has_any(self.words, bits) or avx512_by_avx10):
                    enabled |= 1 << number
        self.words[STATES[0]], self.words[STATES[1]] = enabled & 0xFFFFFFFF, enabled >> 32
        for word in _SUPERVISOR:
            self.words[word] = 0

    def _settle_levels(self) -> None:
        """The maximum leaves: as much as the features need, unless told otherwise. Before filtering."""
        level, xlevel, xlevel2, level_7 = self._min_level, self._min_xlevel, self._min_xlevel2, 0
        for word in self.features.rules.levels:
            number, subleaf = word.place
            if not self.words.get(word, 0):
                continue
            if number < 0x10000000:
                level = max(level, number)
            elif number >= 0xC0000000:
                xlevel2 = max(xlevel2, number)
            elif number >= 0x80000000:
                xlevel = max(xlevel, number)
            if number == 7:
                level_7 = max(level_7, subleaf)
        level = max(level, FIXED_LEVEL)
        if self.has("avx10"):
            level = max(level, AVX10_LEVEL)
        if self.has("svm"):
            xlevel = max(xlevel, 0x8000000A)
        if self.words.get(_FEATURES_21, 0):
            xlevel = max(xlevel, _EXTENDED_FEATURES)
        values = self.option.values
        self.level, self.level_7 = int(values.get("level", level)), level_7
        self.xlevel, self.xlevel2 = int(values.get("xlevel", xlevel)), xlevel2

    def _filter(self) -> None:
        """x86_cpu_filter_features: what the host cannot do goes."""
        for word in self.features.words:
            self._drop(word, self.words.get(word, 0) & ~self.supported.words[word])
        if self.has("avx10"):
            self.avx10_version = min(self.avx10_version, self.supported.value(_AVX10_VERSION) & 0xFF)
        for name in _NOT_IN_A_TD:
            if self.has(name):
                raise Unpredictable(f"{name} is left in a TD, whose leaves are not modelled")

    def _drop(self, word: Word, bits: int) -> None:
        if bits:
            self.words[word] = self.words.get(word, 0) & ~bits
            self.dropped[word] = self.dropped.get(word, 0) | bits

    def _settle_widths(self) -> None:
        """Physical address widths: the host's own for a 64-bit CPU that asks for it, else as QEMU emulates them."""
        values = self.option.values
        physical = int(values.get("phys-bits", 0))
        if not self.has("lm"):
            if physical:
                raise Refused("phys-bits cannot be chosen for a CPU without long mode")
            self.physical_width = 36 if self.has("pse36") or self.has("pae") else 32
            self.guest_width = 0
            return
        limit = int(values.get("host-phys-bits-limit", 0))
        of_host = bool(values.get("host-phys-bits", self._of_host))
        if of_host:
            physical = self.host_physical_width
            physical = min(physical, limit) if limit else physical
        guest = min(self.supported.value(Word(Leaf(0x80000008), "eax")) >> 16 & 0xFF, physical)
        if of_host and limit:
            guest = min(guest, limit)
        if physical and not 32 <= physical <= 52:
            raise Refused(f"phys-bits has to be 32 to 52, not {physical}")
        self.physical_width = physical or 40
        if guest and not 32 <= guest <= self.physical_width:
            raise Refused(f"a guest physical address width of {guest} does not fit phys-bits {self.physical_width}")
        self.guest_width = guest

    @property
    def host_physical_width(self) -> int:
        """The processor's physical address width in bits."""
        return self.host.execute(0x80000008, 0).eax & 0xFF
