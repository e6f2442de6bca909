"""What QEMU asks a TD for, computed without QEMU: its CPU models, what it drops, and the leaves that it builds.

Pure but for reading the package's own data, of one QEMU series each (``data/``; ``scripts/read-cpu-models`` reads
them from a QEMU). The steps and their names are those of target/i386 (cpu.c, kvm/kvm.c, kvm/tdx.c). What is not
modelled is refused by Unpredictable, never guessed.

>>> request = build("host,-avx512f", "2", host)
>>> request.cpuid[Leaf(0x7, 0)], request.dropped, request.xfam
"""

from plugin.qemu.request.build import Request, build
from plugin.qemu.request.errors import Refused, UnknownFeature, UnknownModel, Unpredictable
from plugin.qemu.request.host import Host

__all__ = ["Host", "Refused", "Request", "UnknownFeature", "UnknownModel", "Unpredictable", "build"]
