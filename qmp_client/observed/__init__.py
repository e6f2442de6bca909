"""What a real guest showed of its CPUID, in a file: reading it, and holding it against a prediction."""
