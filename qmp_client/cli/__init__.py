"""The command line. Each command is a module of its own and loads only what it runs."""
