"""Tools that a model may ask for: Python functions, their schemas and their registry."""
