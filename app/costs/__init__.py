"""Prices, the ledger, and reports from it."""
