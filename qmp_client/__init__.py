"""The asyncio orchestrator: drives the negotiation over QMP and reconciles the result."""
