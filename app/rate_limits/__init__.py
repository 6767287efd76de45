"""Rate limits that the whole cluster keeps together, and uses."""
