"""The negotiation: what to choose, and the conversation with QEMU that carries the choice."""
