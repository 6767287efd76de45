"""Checks of a workflow before it is stored that the domain cannot make by itself."""
