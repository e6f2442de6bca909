"""A model of the TDX module: how TDH.MNG.INIT computes a TD's CPUID, and why each bit is what it is.

Versions of the module and processors are data; one engine computes. Pure: nothing here touches the machine.

>>> module, platform = load_module("1.5.05"), load_platform("emerald-rapids")
>>> td = init_td(module, platform, TdParams(attributes=0, xfam=0x3, cpuid_config={}))
>>> str(td.cause(Bit(Leaf(0x7, 0), "ebx", 5)))
'xfam[2]'
"""

# Leaf and Bit are the vocabulary of every call here.
from plugin.cpuid import Bit, Leaf
from plugin.tdx_module.catalog import (
    load_host,
    load_module,
    load_platform,
    module_names,
    platform_names,
    published_names,
)
from plugin.tdx_module.cause import Cause
from plugin.tdx_module.errors import BadPlatform, Mismatch, SeamcallError, UnknownName
from plugin.tdx_module.guest import Controls
from plugin.tdx_module.host import PlatformRefused, TdxHost, check_platform, tdx_host
from plugin.tdx_module.init import init_td
from plugin.tdx_module.module import ModuleVersion
from plugin.tdx_module.names import attribute_bit, attribute_names, explain_attributes, explain_xfam, xfam_names
from plugin.tdx_module.platform import Platform
from plugin.tdx_module.td import Td, TdParams, VcpuState, VirtualizationException

__all__ = [
    "BadPlatform",
    "Bit",
    "Cause",
    "Controls",
    "Leaf",
    "Mismatch",
    "ModuleVersion",
    "Platform",
    "PlatformRefused",
    "SeamcallError",
    "Td",
    "TdParams",
    "TdxHost",
    "UnknownName",
    "VcpuState",
    "VirtualizationException",
    "attribute_bit",
    "attribute_names",
    "check_platform",
    "explain_attributes",
    "explain_xfam",
    "init_td",
    "load_host",
    "load_module",
    "load_platform",
    "module_names",
    "platform_names",
    "published_names",
    "tdx_host",
    "xfam_names",
]
