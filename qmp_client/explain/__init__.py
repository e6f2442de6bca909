"""Explaining one CPUID bit or field: what it is, who controls it, and what a QEMU user can do about it."""
