"""The user account of a server. Postgres refuses to run as root, so root has to switch users."""

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
    """The user that owns a server's data, and the way to run a program as that user.

    Attributes:
        uid: Id of the user that owns the data.
        gid: Id of the group of the same user.
        prefix: Command that switches to this user, and then runs the rest of the command line.
        switch: Whether the parent process has to switch users itself, because no switching command
            works on this machine.
    """

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()
    switch: bool = False


def unprivileged_account(paths: Iterable[Path]) -> Account:
    """Return an account for a server that must not run as root.

    Args:
        paths: Folders that the server has to reach: the folders of the server's programs and data.

    Returns:
        The account of this process, or the account of "nobody" if this process runs as root.

    Raises:
        EmbeddedServicesError: If this process runs as root and cannot switch users.
    """
    if os.geteuid() != 0:
        return Account(uid=os.geteuid(), gid=os.getegid())
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
    """Return a command that runs a program as ``uid``, with the right to enter any folder.

    Without that right, the program could not reach a home below /root.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    prefix = (
        setpriv,
        *("--reuid", str(uid), "--regid", str(gid), "--clear-groups"),
        *("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"),
    )
    # Old versions of setpriv, and user namespaces, refuse some of the options, so try the command.
    trial = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if trial.returncode == 0 else ()


def closed_part(path: Path) -> Path | None:
    """Return the first folder on the way to ``path`` that other users may not enter, or None."""
    parts = [*reversed(path.parents), path]
    closed = (part for part in parts if part.is_dir() and not part.stat().st_mode & stat.S_IXOTH)
    return next(closed, None)


def _cannot_step_down(reason: str) -> str:
    return (
        f"Postgres refuses to run as root, and {reason}: run as a normal user, install util-linux "
        "(setpriv), or set DATABASE_URL to a running Postgres"
    )
