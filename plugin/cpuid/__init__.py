"""The one CPUID vocabulary: leaves, registers, bits and the names of fields.

Pure data types, no I/O beyond reading the package's own tables. Everything else in the project names CPUID
in these terms.
"""

from plugin.cpuid.leaf import (
    ALL,
    REGISTERS,
    ZERO,
    Bit,
    Cpuid,
    Leaf,
    Register,
    Registers,
    spelled_like,
)

__all__ = ["ALL", "REGISTERS", "ZERO", "Bit", "Cpuid", "Leaf", "Register", "Registers", "spelled_like"]
