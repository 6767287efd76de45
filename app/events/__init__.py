"""Sends signals, the stream of all runs and live text over Redis; Postgres stores the history."""
