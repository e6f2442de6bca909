"""What a real TDX host offers, written down so that it can be simulated anywhere."""
