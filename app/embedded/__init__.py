"""Real Postgres and Redis servers from Python wheels, for development without installed services.

The wheels provide only the binaries. This package starts, shares and stops the servers. This
package uses kernel locks instead of lists of process ids, because the kernel also releases the
locks of a killed process.
"""

from app.embedded.services import Services, ServiceUrls

__all__ = ["ServiceUrls", "Services"]
