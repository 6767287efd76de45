"""Rate limits that the whole cluster keeps and uses together."""
