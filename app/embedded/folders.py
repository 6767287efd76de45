"""The home, and the folders of the embedded services.

The data is below the home; the sockets have short paths.
"""

import hashlib
import os
import shlex
import stat
import tempfile
from pathlib import Path

from app.errors import EmbeddedServicesError

# With its final zero byte, a socket's path may have 108 bytes on Linux and 104 bytes on macOS.
MAX_SOCKET_PATH_BYTES = 103
LONGEST_SOCKET_NAME = ".s.PGSQL.5432.lock"
PRIVATE = 0o700


def open_home(home: Path) -> Path:
    """Create the home if it is missing, close it to other users, and return its real path.

    Raises:
        EmbeddedServicesError: If the home cannot be written, belongs to another user, or was open
            to changes by other users.
    """
    try:
        home = home.resolve()
        # Every new folder is private, whatever the umask is, because the owner of a folder could
        # replace the folders in it.
        for folder in (*reversed(home.parents), home):
            if not folder.is_dir():
                folder.mkdir(mode=PRIVATE, exist_ok=True)
        found = home.stat()
        owner = found.st_uid
    except OSError as error:
        raise EmbeddedServicesError(
            f"cannot use {str(home)!r} as the home of AgentChord ({error.strerror}): set "
            "AGENTCHORD_HOME to a folder that you can write to, or set DATABASE_URL and REDIS_URL"
        ) from error
    if owner != os.geteuid():
        raise EmbeddedServicesError(
            f"{str(home)!r} belongs to user id {owner}, but this process runs as user id "
            f"{os.geteuid()}: set AGENTCHORD_HOME to a folder of your own, or set DATABASE_URL and "
            "REDIS_URL"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EmbeddedServicesError(
            f"other users may write to {str(home)!r}, so its files may not be yours: check the "
            f"files, then close the folder with `chmod 700 {shlex.quote(str(home))}`, or set "
            "AGENTCHORD_HOME to another folder"
        )
    if stat.S_IMODE(found.st_mode) != PRIVATE:
        home.chmod(PRIVATE)
    return home


def private_folder(path: Path, *, owner: int | None = None) -> Path:
    """Create a folder that only ``owner`` can enter, or check that an existing folder is private.

    Args:
        path: Path of the folder; the parent folder must exist.
        owner: Id of the user that shall own the folder; None means the user of this process.

    Raises:
        EmbeddedServicesError: If another user made the folder, or if the path is a link.
    """
    me = os.geteuid()
    owner = me if owner is None else owner
    path.mkdir(mode=PRIVATE, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {me, owner}:
        raise EmbeddedServicesError(
            f"{str(path)!r} is not a folder of this user (user id {found.st_uid} made it): remove "
            "this path, or set TMPDIR to a folder of your own"
        )
    if found.st_uid != owner:
        os.chown(path, owner, -1, follow_symlinks=False)
    if stat.S_IMODE(found.st_mode) != PRIVATE:
        path.chmod(PRIVATE)
    return path


def socket_folder(home: Path, name: str, *, owner: int | None = None) -> Path:
    """Make the private folder for the sockets of one server.

    Args:
        home: Real path of the server's home; the folder's name is computed from this path.
        name: Name of the server.
        owner: Id of the user that shall own the folder; None means the user of this process.

    Raises:
        EmbeddedServicesError: If there is no safe place for the folder.
    """
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    # XDG_RUNTIME_DIR comes last, because the system deletes it at logout while servers still run.
    runtime = os.environ.get("XDG_RUNTIME_DIR")  # noqa: TID251 - not a setting of AgentChord
    bases = [tempfile.gettempdir(), "/tmp", runtime]  # noqa: S108 - checked below
    for base in (Path(base).resolve() for base in bases if base):
        folder = base / f"agentchord-{digest}-{name}"
        longest = os.fsencode(folder / LONGEST_SOCKET_NAME)
        if _trustworthy(base) and len(longest) <= MAX_SOCKET_PATH_BYTES:
            return private_folder(folder, owner=owner)
    raise EmbeddedServicesError(
        f"none of {', '.join(repr(base) for base in bases if base)} is a safe place for sockets: "
        "set TMPDIR to a folder of your own with a short path, or set DATABASE_URL and REDIS_URL"
    )


def clear_folder(folder: Path) -> None:
    """Remove the sockets and lock files that a killed server left in the socket folder."""
    if folder.is_dir():
        for leftover in folder.iterdir():
            leftover.unlink()


def _trustworthy(base: Path) -> bool:
    """Return whether folders in ``base`` are as safe from other users as the folders in /tmp."""
    if not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
        return False
    found = base.stat()
    others_write = bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    sticky = bool(found.st_mode & stat.S_ISVTX)
    return found.st_uid in {0, os.geteuid()} and (sticky or not others_write)
