"""Live news over Redis; what must not be lost is in Postgres."""
