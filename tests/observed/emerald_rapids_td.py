"""What a real TD on Emerald Rapids showed, reduced to facts: the words of its /proc/cpuinfo and a few lines.

Its VMM is none of ours: it let the guest have HLE, RTM, WAITPKG and CET, which upstream KVM hides or QEMU drops.
"""

from __future__ import annotations

BY_LEAF = {
    "0x1.edx": "fpu vme de pse tsc msr pae cx8 apic sep pge mca cmov pat clflush dts mmx fxsr sse sse2 ss ht tm",
    "0x1.ecx": "pni pclmulqdq dtes64 ds_cpl ssse3 sdbg fma cx16 pdcm pcid sse4_1 sse4_2 x2apic movbe popcnt"
    " tsc_deadline_timer aes xsave avx f16c rdrand hypervisor",
    "0x7.0.ebx": "fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq rdseed adx smap avx512ifma"
    " clflushopt clwb avx512cd sha_ni avx512bw avx512vl",
    "0x7.0.ecx": "avx512vbmi umip pku ospke waitpkg avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg"
    " avx512_vpopcntdq la57 rdpid bus_lock_detect cldemote movdiri movdir64b",
    "0x7.0.edx": "fsrm md_clear serialize tsxldtrk ibt amx_bf16 avx512_fp16 amx_tile amx_int8 flush_l1d"
    " arch_capabilities ibrs ibpb stibp ssbd",
    "0x7.1.eax": "avx_vnni avx512_bf16",
    "0xd.1.eax": "xsaveopt xsavec xgetbv1 xsaves",
    "0x80000001": "syscall nx pdpe1gb rdtscp lm lahf_lm abm 3dnowprefetch",
    "other": "constant_tsc nonstop_tsc wbnoinvd",
    "Linux": "arch_perfmon pebs bts rep_good nopl tsc_reliable cpuid tsc_known_freq cpuid_fault invpcid_single"
    " ibrs_enhanced tdx_guest",
}
FLAGS = " ".join(BY_LEAF.values())

CPUINFO = f"""\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 207
model name\t: 06/cf
flags\t\t: {FLAGS}
bogomips\t: 4200.00
clflush size\t: 64
power management:

processor\t: 1
vendor_id\t: GenuineIntel
"""
