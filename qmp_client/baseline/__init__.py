"""The guest-visible CPUID of a grid as a text file for a repository, and what has changed since it was written."""
