"""Views of runs and of the whole cluster, read from the run tables and the ledger."""
