"""Prices, the ledger, and reports from the ledger."""
