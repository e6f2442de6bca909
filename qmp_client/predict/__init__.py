"""``tdx-cpuid predict``: the report of a negotiation, without QEMU."""
