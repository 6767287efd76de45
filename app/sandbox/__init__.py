"""Evaluates conditions, schemas, web pages and queries in separate processes, within limits.

``program`` and ``queries`` run in these processes, ``processes`` starts and ends them, and
``turns`` decides which run may use them next.
"""
