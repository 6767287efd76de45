"""What the run tables and the ledger say together, for the whole cluster."""
