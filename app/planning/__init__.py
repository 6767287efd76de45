"""Estimates of a run before it starts: calls, tokens, dollars, seconds."""
