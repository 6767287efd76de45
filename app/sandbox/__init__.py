"""Evaluates conditions, JSON Schemas and web pages in separate processes, within limits.

``program`` runs in these processes, ``processes`` starts and ends them, and ``turns`` decides which
run may use them next.
"""
