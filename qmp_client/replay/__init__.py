"""A recorded conversation with the simulated KVM: what was said, and what became of each TD's CPUID."""
