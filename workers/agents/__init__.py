"""What each kind of agent does with its prompt."""
