"""Every setting, typed: where it may come from, and what it means."""
