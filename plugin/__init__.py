"""Everything that plugs into QEMU: the patches, the simulated KVM and the model of the TDX module."""
