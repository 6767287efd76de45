"""Postgres: the tables, the sessions, and the statements of the hot path."""
