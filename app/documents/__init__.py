"""Files of structured text: read, bounded and parsed for settings and workflow files alike."""
