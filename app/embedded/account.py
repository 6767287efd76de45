"""The user account of the embedded Postgres: Postgres refuses to run as root, so root switches."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from app.errors import EmbeddedServicesError

#: Users to which root switches; the first one that exists is used for new data.
UNPRIVILEGED = ("agentchord", "postgres", "nobody")
# The folder in which a process was started. The process reaches this folder by this path, even if
# a folder above it is closed. Only Linux has the path.
_STARTED_IN = Path("/proc/self/cwd")


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user that owns a server's data and runs the server, without any capability of root.

    Attributes:
        uid: Id of the user.
        gid: Id of the group of the same user.
    """

    uid: int
    gid: int

    @property
    def foreign(self) -> bool:
        """Whether this is another user than the user of this process."""
        return self.uid != os.geteuid()

    def path_to(self, data: Path) -> Path:
        """Return the path by which a server that is started in ``data`` reaches this folder.

        Raises:
            EmbeddedServicesError: If the user cannot reach the folder.
        """
        if not self.foreign:
            return data
        if _STARTED_IN.exists():
            return _STARTED_IN
        if (closed := closed_part(data.parent)) is not None:
            raise EmbeddedServicesError(_cannot_step_down(f"{str(closed)!r} is closed to others"))
        return data


def server_account(data: Path) -> Account:
    """Return the account for a server that must not run as root.

    Args:
        data: Folder of the server's data; the owner of existing data goes on to run the server.

    Returns:
        The account of this process, or an account without privileges if this process runs as root.

    Raises:
        EmbeddedServicesError: If this process runs as root and there is no account to switch to.
    """
    if os.geteuid() != 0:
        return Account(uid=os.geteuid(), gid=os.getegid())
    if data.exists() and (found := data.stat()).st_uid != 0:
        return Account(uid=found.st_uid, gid=found.st_gid)
    for name in UNPRIVILEGED:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=user.pw_uid, gid=user.pw_gid)
    names = ", ".join(map(repr, UNPRIVILEGED))
    raise EmbeddedServicesError(_cannot_step_down(f"there is none of the users {names}"))


def closed_part(path: Path) -> Path | None:
    """Return the first folder on the way to ``path`` that other users may not enter, or None."""
    parts = [*reversed(path.parents), path]
    closed = (part for part in parts if part.is_dir() and not part.stat().st_mode & stat.S_IXOTH)
    return next(closed, None)


def _cannot_step_down(reason: str) -> str:
    return (
        f"Postgres refuses to run as root, and {reason}: run as a normal user, or set DATABASE_URL "
        "to a running Postgres"
    )
