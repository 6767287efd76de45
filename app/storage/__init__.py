"""Access to Postgres (tables, sessions and statements), and the connections to Redis."""
