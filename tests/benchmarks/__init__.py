"""AgentChord's whole stack beside others: `make bench`; see docs/performance.md."""
