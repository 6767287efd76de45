"""What a run will need, computed without any call: calls, tokens, dollars, seconds."""
