"""Readers of files: YAML and JSON files with limits, and the files of only one folder."""
