"""The backends that hold buckets: in Redis for a cluster, or in the memory of one process."""
