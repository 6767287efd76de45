"""All that is checked of a workflow before it is stored, beyond what the domain knows by itself."""
