"""The conversation of a VMM with the simulated KVM, each ioctl decoded, as JSON Lines."""
