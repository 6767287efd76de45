"""What runs, ledger and limits say together: status, progress, explanations, reports, metrics."""
