"""A reader of YAML and JSON files with limits, which settings and workflow files both use."""
