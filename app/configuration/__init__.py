"""Every setting, typed: its sources and its meaning."""
