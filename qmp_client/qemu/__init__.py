"""QEMU as a process: which binary and firmware, which command line, how it starts, dies and is stopped."""
