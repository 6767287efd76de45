"""Classifies failures, makes all decisions on retries, and holds the circuit breakers."""
