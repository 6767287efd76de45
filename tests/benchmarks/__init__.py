"""AgentChord's whole stack beside plain asyncio: `make bench`; see docs/performance.md."""
