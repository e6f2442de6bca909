"""Starting a guest from a disk, waiting until it is up, and taking it down again."""
