"""The one guarded way to addresses outside: for agents, tools and notifications."""
