"""Advisory locks on files. The kernel releases a lock when the holder of the lock dies."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from app.errors import EmbeddedServicesError

POLL_S = 0.02


class FileLock:
    """A lock that is held through one open file.

    The file is closed on exec, so child processes do not inherit the lock. The lock works between
    processes of one machine, but not on every network file system. The home of the embedded
    services has to be a local folder for this reason.

    Example:
        with FileLock.acquire(path, timeout_s=10):
            ...
    """

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        self._pid = os.getpid()

    @classmethod
    def attempt(cls, path: Path, *, shared: bool = False) -> Self | None:
        """Take the lock if it is free, else return None at once.

        Args:
            path: File to lock; a missing file is created.
            shared: Whether other processes may hold a shared lock on the file at the same time.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return cls(fd)

    @classmethod
    def acquire(cls, path: Path, *, timeout_s: float, shared: bool = False) -> Self:
        """Wait for the lock.

        Raises:
            EmbeddedServicesError: If the lock is not free within ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while (lock := cls.attempt(path, shared=shared)) is None:
            if time.monotonic() > deadline:
                raise EmbeddedServicesError(
                    f"another process has held {str(path)!r} for {timeout_s:.0f} s: if an "
                    "agentchord process hangs (`ps -ef | grep agentchord`), end that process"
                )
            time.sleep(POLL_S)
        return lock

    def fileno(self) -> int:
        """Return the descriptor that carries the lock."""
        if self._fd is None:
            raise ValueError("the lock has been released: acquire it again")
        return self._fd

    def release(self) -> None:
        """Release the lock, even if forked children still hold a copy of the descriptor.

        In a forked child, this method only closes the copy, because the lock belongs to the parent.
        """
        if self._fd is not None:
            if self._pid == os.getpid():
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.hand_over()

    def hand_over(self) -> None:
        """Close only this process's descriptor; a child that inherited the lock still holds it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
