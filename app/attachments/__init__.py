"""Reads the files that agents send with their prompts: from a folder, a URL or base64."""
