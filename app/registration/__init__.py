"""Checks of a workflow before it is stored; the domain alone cannot make these checks."""
