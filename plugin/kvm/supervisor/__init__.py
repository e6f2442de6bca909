"""Answers a command's use of /dev/kvm from user space: no root, no preloaded library, no real KVM."""
