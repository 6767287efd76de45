"""Logging, metrics and tracing: what every layer writes to."""
