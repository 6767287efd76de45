"""Rate limits that all processes of the cluster share."""
