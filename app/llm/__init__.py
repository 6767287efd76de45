"""Clients of the model providers, behind one interface."""
