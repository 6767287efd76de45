"""Advisory locks on files; the kernel releases them when their holder dies."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from app.errors import EmbeddedServicesError

POLL_S = 0.02


class FileLock:
    """A lock held through one open file; closed on exec, so children do not inherit it.

    It works between processes of one machine, not on every network file system: the home of the
    embedded services has to be a local folder.

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
            path: File to lock; created when it is missing.
            shared: Whether other processes may hold it shared at the same time.
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
            EmbeddedServicesError: If it is not free within ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while (lock := cls.attempt(path, shared=shared)) is None:
            if time.monotonic() > deadline:
                raise EmbeddedServicesError(
                    f"another process has held {str(path)!r} for {timeout_s:.0f} s: see whether an "
                    "agentchord process hangs (`ps -ef | grep agentchord`) and end it"
                )
            time.sleep(POLL_S)
        return lock

    def fileno(self) -> int:
        """Return the descriptor that carries the lock."""
        if self._fd is None:
            raise ValueError("the lock has been released: acquire it again")
        return self._fd

    def release(self) -> None:
        """Release the lock, also while forked children still hold a copy of the descriptor.

        In such a child this only closes the copy: the lock belongs to its parent.
        """
        if self._fd is not None:
            if self._pid == os.getpid():
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.hand_over()

    def hand_over(self) -> None:
        """Close this process's descriptor only: the lock lives on in a child that inherited it."""
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
