"""What QEMU takes to be supported: KVM's answer, QEMU's additions to it, and what a TD can have.

kvm_arch_get_supported_cpuid (kvm/kvm.c) and tdx_adjust_cpuid_features with its tables (kvm/tdx.c).
"""

from plugin.cpuid import ZERO, Leaf, Register
from plugin.qemu.request.host import Host
from plugin.qemu.request.words import Features, Word, Words

STATES = (Word(Leaf(0xD, 0), "eax"), Word(Leaf(0xD, 0), "edx"))
"""XCR0's bits, low and high."""
USER_STATES = 0x602FF
"""State components that QEMU knows in XCR0."""
SUPERVISOR_STATES = 1 << 15
"""State components that QEMU knows in IA32_XSS: architectural LBRs."""
_KVM_FEATURES = (0x40000001, 0)


class Supported:
    """The supported value of each register of CPUID, in a TD on one host."""

    def __init__(self, features: Features, host: Host) -> None:
        self._rules = features.rules
        self._host = host
        self._words = frozenset(features.words)
        self._td = self._what_a_td_can_have()
        """tdx_supported_cpuid: leaf and sub-leaf to registers."""
        self.words: Words = {word: self.value(word) for word in features.words}
        """The supported bits of every feature word."""

    def value(self, word: Word) -> int:
        """A register's supported value; of a register that is no feature word, KVM's."""
        value = self._of_kvm(word) | self._rules.tdx_fixed_1.get(word, 0)
        if word in self._words and word.place in self._td:
            value &= self._td[word.place].get(word.register, 0)
        return value

    def _of_kvm(self, word: Word) -> int:
        rules = self._rules
        if word in STATES:
            return self._host.guest_states >> (32 if word.register == "edx" else 0) & 0xFFFFFFFF
        value = self._host.supported.get(word.place, ZERO).get(word.register) | rules.always_supported.get(word, 0)
        if mask := rules.supported_if_native.get(word, 0):
            value |= self._host.execute(*word.place).get(word.register) & mask
        target, source, mask = rules.amd_aliases
        return value | self.value(source) & mask if word == target else value

    def _what_a_td_can_have(self) -> dict[tuple[int, int], dict[Register, int]]:
        rules, host = self._rules, self._host
        td: dict[tuple[int, int], dict[Register, int]] = {
            index: {"eax": mask.eax, "ebx": mask.ebx, "ecx": mask.ecx, "edx": mask.edx}
            for index, mask in host.configurable.items()
        }

        def add(words: Words) -> None:
            for word, mask in words.items():
                registers = td.setdefault(word.place, {})
                registers[word.register] = registers.get(word.register, 0) | mask

        add(rules.tdx_fixed_1)
        for supported, table in ((host.attributes, rules.tdx_attributes), (host.xfam, rules.tdx_xfam)):
            for position, words in table:
                if supported >> position & 1:
                    add(words)
        low, high = STATES
        user, supervisor = host.xfam & USER_STATES, host.xfam & SUPERVISOR_STATES
        add({low: user & 0xFFFFFFFF, high: user >> 32})
        add({Word(Leaf(0xD, 1), "ecx"): supervisor & 0xFFFFFFFF, Word(Leaf(0xD, 1), "edx"): supervisor >> 32})
        add(rules.tdx_always)
        kvm_features = td.setdefault(_KVM_FEATURES, {})
        for word, mask in rules.tdx_kvm_features.items():
            kvm_features[word.register] = mask
        return td
