"""The module version and processor that most tests use."""

from __future__ import annotations

import pytest

from plugin.tdx_module import ModuleVersion, Platform, load_module, load_platform


@pytest.fixture
def module() -> ModuleVersion:
    return load_module("1.5.05")


@pytest.fixture
def platform() -> Platform:
    return load_platform("emerald-rapids")
