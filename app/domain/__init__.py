"""The vocabulary: frozen values, enums and pure functions, standard library only, no I/O."""
