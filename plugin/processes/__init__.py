"""Raw calls about processes: forking a child that cannot come back, and dying with one's parent.

Standard library only, and nothing that costs time before it is needed: QEMU waits for it to be loaded.
"""
