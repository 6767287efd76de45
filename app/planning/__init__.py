"""What a run will need, told without a call: calls, tokens, dollars, seconds."""
