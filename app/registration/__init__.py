"""Checks that the domain alone cannot make of a workflow before the workflow is stored."""
