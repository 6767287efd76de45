"""The account a server runs under: Postgres refuses to run as root, so root has to step down."""

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app.errors import EmbeddedServicesError

UNPRIVILEGED = "nobody"


@dataclass(frozen=True, kw_only=True)
class Account:
    """How to run a program as the user that owns the server's data.

    Attributes:
        uid: User id that owns the data.
        gid: Group id of it.
        prefix: Command that steps down and then runs the rest of the line.
        switch: Whether the parent has to switch users itself, for want of such a command.
    """

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()
    switch: bool = False


def own_account() -> Account:
    """This process's own account."""
    return Account(uid=os.geteuid(), gid=os.getegid())


def unprivileged_account(paths: Iterable[Path]) -> Account:
    """The account for a server that must not run as root; our own if we are not root.

    Args:
        paths: What the server has to reach: its programs, its data.

    Raises:
        EmbeddedServicesError: If we are root and cannot step down.
    """
    if os.geteuid() != 0:
        return own_account()
    try:
        user = pwd.getpwnam(UNPRIVILEGED)
    except KeyError as error:
        raise EmbeddedServicesError(_cannot_step_down("there is no user 'nobody'")) from error
    prefix = _stepping_down(user.pw_uid, user.pw_gid)
    if prefix:
        return Account(uid=user.pw_uid, gid=user.pw_gid, prefix=prefix)
    for path in paths:
        if (closed := closed_part(path)) is not None:
            raise EmbeddedServicesError(
                _cannot_step_down(f"'nobody' cannot reach {str(closed)!r} and setpriv is missing")
            )
    return Account(uid=user.pw_uid, gid=user.pw_gid, switch=True)


def _stepping_down(uid: int, gid: int) -> tuple[str, ...]:
    """Command that runs as uid but may pass any folder, so that a home below /root works too."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    prefix = (
        setpriv,
        *("--reuid", str(uid), "--regid", str(gid), "--clear-groups"),
        *("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"),
    )
    # Old versions and user namespaces refuse some of it: better seen here than in a server's log.
    trial = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if trial.returncode == 0 else ()


def closed_part(path: Path) -> Path | None:
    """The first folder on the way to ``path`` that strangers may not enter."""
    for part in [*reversed(path.parents), path]:
        if part.is_dir() and not part.stat().st_mode & stat.S_IXOTH:
            return part
    return None


def _cannot_step_down(reason: str) -> str:
    return (
        f"Postgres refuses to run as root, and {reason}: run as a normal user, install util-linux "
        "(setpriv), or set DATABASE_URL to a running Postgres"
    )
