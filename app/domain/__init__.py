"""The vocabulary, which does no I/O: frozen values, enums and pure functions."""
