"""QEMU with the CPUID commands: the patch series per release, and what gets or builds QEMU and its firmware.

Runs before any virtual environment exists: only the standard library of Python 3.11.
"""
