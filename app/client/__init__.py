"""The API of a program: enqueue, run handles, the engine, costs, events, monitoring."""
