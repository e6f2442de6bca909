"""A grid of TDs: which cells it has, how they are run side by side, what became of each, and how that is shown."""
