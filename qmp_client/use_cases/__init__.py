"""What each command does: a ``Request``, which its options fill, and ``run``, which returns the exit status.

``qmp_client.cli`` loads the one module that it runs (``cli.door``). A use case imports what it needs at its top.
"""
