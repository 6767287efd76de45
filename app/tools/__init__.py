"""Tools that a model may ask for: Python functions, their schemas and where they are found."""
