"""Builds the patched QEMU into the cache: source tree, patches, configure, ninja, install."""
