"""Opens the files of only one folder.

A path is opened part by part; each part is opened inside the previous part. No symbolic link is
followed, not even a link that stays inside the folder. Therefore no time passes between the check
and the use of a path.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_PARTS = 50
_MAX_SHOWN_CHARS = 100
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK is set, because the opening of a pipe would wait for the pipe's other end.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Folder:
    """A folder whose files may be opened.

    Args:
        path: Path of the folder. The folder itself may be a link; no part below the folder may be a
            link.

    Example:
        Folder(Path("/srv/invoices")).read("2026/0001.pdf", max_bytes=1_000_000)
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """Return the content of a file.

        Args:
            path: Path of the file, relative to the folder.
            max_bytes: Size of the largest file that is read.

        Raises:
            ValueError: If the path leads out of the folder, if the path leads to something other
                than a file, or if the file is too large.
            OSError: If the file cannot be opened; a symbolic link counts as such a file.
        """
        *folders, name = parts_of_file(path)
        with self.opened(folders) as folder:
            descriptor = os.open(name, _FILE, dir_fd=folder)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ValueError(f"{_shown(path)} is not a file")
                content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ValueError(
                f"{_shown(path)} has more than {max_bytes:,} bytes, which is the limit"
            )
        return content

    @contextmanager
    def opened(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Yield the descriptor of an inner folder.

        Args:
            parts: The names on the way to the inner folder.
            make: Whether missing folders are made.
        """
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                inner = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


def parts_of(path: str) -> list[str]:
    """Return the parts of a path.

    Raises:
        ValueError: If the path is not relative, leads out of the folder, or is too deep.
    """
    if "\x00" in path or path.startswith("/"):
        raise ValueError(f"path {_shown(path)} is not relative to the working folder")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > MAX_PARTS:
        raise ValueError(f"path {_shown(path)} leads out of the working folder, or is too deep")
    return parts


def parts_of_file(path: str) -> list[str]:
    """Like ``parts_of``, return the parts of a file's path; the last part is the file's name."""
    parts = parts_of(path)
    if not parts:
        raise ValueError(f"path {_shown(path)} names no file")
    return parts


def _shown(path: str) -> str:
    return repr(path if len(path) <= _MAX_SHOWN_CHARS else f"{path[:_MAX_SHOWN_CHARS]}...")
