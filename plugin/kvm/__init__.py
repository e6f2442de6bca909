"""A KVM in user space that knows TDX: enough for a VMM to build and inspect a TD on any Linux machine."""
