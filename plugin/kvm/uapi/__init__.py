"""KVM's user interface in numbers: structures, ioctl requests, capabilities and constants, each in one place."""
