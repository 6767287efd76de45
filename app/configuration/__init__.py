"""Every setting, with its type, its sources and its meaning."""
