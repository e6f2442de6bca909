"""Ways of talking to KVM about a TD: KVM_MEMORY_ENCRYPT_OP's sub-commands, apart from the devices that carry them.

A dialect knows the module and KVM's policy. Of the VM and the vCPU it sees what `contract` lists, and no more.
"""
