"""Real Postgres and Redis servers from Python wheels, for development without installed services.

The wheels are only a source of binaries: starting, sharing and stopping the servers is done here,
with kernel locks instead of lists of process ids, so that a kill -9 leaves nothing stale.
"""

from app.embedded.services import Services, ServiceUrls

__all__ = ["ServiceUrls", "Services"]
