"""Events over Redis: signals, the stream of all runs, live text; Postgres has the history."""
