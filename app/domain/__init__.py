"""The vocabulary: frozen values, enums and pure functions, which do no I/O."""
