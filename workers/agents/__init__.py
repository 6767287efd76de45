"""The execution of each kind of agent in a worker."""
