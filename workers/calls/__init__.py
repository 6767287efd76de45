"""The rings around a call to a provider; base.py states their order."""
