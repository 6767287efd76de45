"""The backends that hold buckets: in Redis, shared by the cluster, or in a process's memory."""
