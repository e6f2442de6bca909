"""QMP as this project speaks it: the session, and the messages that the patched QEMU adds."""
