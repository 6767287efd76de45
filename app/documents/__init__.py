"""YAML and JSON files, read within limits: settings and workflow files both use this."""
