"""How a worker executes each kind of agent."""
