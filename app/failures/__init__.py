"""Failures: pure decisions about them, one owner of retries, circuit breakers."""
