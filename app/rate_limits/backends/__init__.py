"""Where buckets live: in Redis, shared by the cluster, or in this process's memory."""
