"""The tools ``list_files``, ``read_file`` and ``write_file``, for the files of only one folder.

A path is opened part by part; each part is opened inside the part before. No symbolic link is
followed, not even a link that stays inside the folder. So no time passes between the check of a
path and its use.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypedDict

from uuid_utils.compat import uuid7

from app.configuration.sections import FileTools
from app.domain.suggestions import shortened
from app.tools.tool import Tool

MAX_LISTED = 1000
MAX_PARTS = 50
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK is set, because opening a pipe would wait for its other end.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(TypedDict):
    """A file or folder in a list; ``bytes`` is 0 for a folder."""

    name: str
    kind: str
    bytes: int


class Listing(TypedDict):
    """Entries of a folder; ``more`` is true if some entries are not shown."""

    entries: list[Entry]
    more: bool


class FolderTools:
    """The tools of a folder.

    Several agents may write one file at the same time, and the last write wins. If that matters,
    give each run a path of its own.

    Args:
        folder: The folder; it must exist.
        max_bytes: Size of the largest file that is read or written, in bytes.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def list_files(self, path: str = ".") -> Listing:
        """List the files and folders of a folder.

        Args:
            path: Path of the folder, relative to the working folder; "." is the working folder.
        """
        with self._folder_at(_parts(path)) as folder:
            names = sorted(os.listdir(folder))  # noqa: PTH208  pathlib cannot list a descriptor
            entries = [_entry(folder, name) for name in names[:MAX_LISTED]]
        return {"entries": entries, "more": len(names) > MAX_LISTED}

    def read_file(self, path: str) -> str:
        """Read a text file.

        Args:
            path: Path of the file, relative to the working folder.
        """
        *folders, name = _parts_of_file(path)
        with self._folder_at(folders) as folder:
            descriptor = os.open(name, _FILE, dir_fd=folder)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ValueError(f"{shortened(path)} is not a file")
                content = file.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            raise ValueError(
                f"{shortened(path)} has more than {self._max_bytes:,} bytes, which is the limit"
            )
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{shortened(path)} is not a text in UTF-8") from error

    def write_file(self, path: str, text: str) -> str:
        """Write a text file, in place of an existing one; missing folders are created.

        Args:
            path: Path of the file, relative to the working folder.
            text: The whole text.
        """
        *folders, name = _parts_of_file(path)
        content = text.encode("utf-8", "replace")
        if len(content) > self._max_bytes:
            raise ValueError(
                f"the text has {len(content):,} bytes, the limit is {self._max_bytes:,}"
            )
        with self._folder_at(folders, make=True) as folder:
            _write(folder, name, content)
        return f"wrote {len(content):,} bytes"

    @contextmanager
    def _folder_at(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        # The operator's own folder may be a link; no part below it may be a link.
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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


def file_tools(rules: FileTools) -> Sequence[Tool]:
    """Make the tools of the operator's folder; make no tools if no folder is configured."""
    if rules.folder is None:
        return ()
    tools = FolderTools(rules.folder, max_bytes=rules.max_bytes)
    # A file is always written as a whole, so a repeated write changes nothing.
    functions = (tools.list_files, tools.read_file, tools.write_file)
    return [Tool(function, idempotent=True) for function in functions]


def _parts(path: str) -> list[str]:
    if "\x00" in path or path.startswith("/"):
        raise ValueError(f"path {shortened(path)} is not relative to the working folder")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > MAX_PARTS:
        raise ValueError(f"path {shortened(path)} leads out of the working folder, or is too deep")
    return parts


def _parts_of_file(path: str) -> list[str]:
    parts = _parts(path)
    if not parts:
        raise ValueError(f"path {shortened(path)} names no file")
    return parts


def _entry(folder: int, name: str) -> Entry:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        return {"name": name, "kind": "folder", "bytes": 0}
    kind = "file" if stat.S_ISREG(found.st_mode) else "other"
    return {"name": name, "kind": kind, "bytes": found.st_size}


def _write(folder: int, name: str, content: bytes) -> None:
    """Write a new file, then rename it, so readers see the whole file and links are replaced."""
    beside = f".{uuid7()}.part"
    descriptor = os.open(beside, _NEW, 0o644, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(beside, dir_fd=folder)
        raise
