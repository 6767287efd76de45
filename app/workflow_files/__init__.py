"""Workflows from YAML, JSON and Python files."""
