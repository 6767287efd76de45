"""The checks of a workflow before it is stored that need prices, tokens or schemas."""
