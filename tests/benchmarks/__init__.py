"""The whole stack beside others: `make bench`, `make bench-peers`; see docs/performance.md."""
