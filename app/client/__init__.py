"""What a program calls: enqueue, run handles, the engine, costs, events, monitoring."""
