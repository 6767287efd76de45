"""The tools ``list_files``, ``read_file`` and ``write_file``, for the files of only one folder."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from uuid_utils.compat import uuid7

from app.configuration.sections import FileTools
from app.documents.folder import Folder, parts_of, parts_of_file
from app.domain.suggestions import shortened
from app.tools.tool import BuiltinTool, Tool

MAX_LISTED = 1000
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

    Several agents may write one file at the same time; the last write then wins. If the lost writes
    matter, give each run a path of its own.

    Args:
        folder: The folder; it must exist.
        max_bytes: Size of the largest file that is read or written, in bytes.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = Folder(folder)
        self._max_bytes = max_bytes

    def list_files(self, path: str = ".") -> Listing:
        """List the files and folders of a folder.

        Args:
            path: Path of the folder, relative to the working folder; "." is the working folder.
        """
        with self._folder.opened(parts_of(path)) as folder:
            names = sorted(os.listdir(folder))  # noqa: PTH208  pathlib cannot list a descriptor
            entries = [_entry(folder, name) for name in names[:MAX_LISTED]]
        return {"entries": entries, "more": len(names) > MAX_LISTED}

    def read_file(self, path: str) -> str:
        """Read a text file.

        Args:
            path: Path of the file, relative to the working folder.
        """
        try:
            return self._folder.read(path, max_bytes=self._max_bytes).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{shortened(path)} is not a text in UTF-8") from error

    def write_file(self, path: str, text: str) -> str:
        """Write a text file, in place of an existing one; missing folders are created.

        Args:
            path: Path of the file, relative to the working folder.
            text: The whole text.
        """
        *folders, name = parts_of_file(path)
        content = text.encode("utf-8", "replace")
        if len(content) > self._max_bytes:
            raise ValueError(
                f"the text has {len(content):,} bytes, the limit is {self._max_bytes:,}"
            )
        with self._folder.opened(folders, make=True) as folder:
            _write(folder, name, content)
        return f"wrote {len(content):,} bytes"


def file_tools(rules: FileTools) -> Sequence[Tool]:
    """Make the tools of the operator's folder; make no tools if no folder is configured."""
    if rules.folder is None:
        return ()
    tools = FolderTools(rules.folder, max_bytes=rules.max_bytes)
    # A file is always written as a whole, so a repeated write changes nothing.
    functions = (tools.list_files, tools.read_file, tools.write_file)
    return [BuiltinTool(function, idempotent=True) for function in functions]


def _entry(folder: int, name: str) -> Entry:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        return {"name": name, "kind": "folder", "bytes": 0}
    kind = "file" if stat.S_ISREG(found.st_mode) else "other"
    return {"name": name, "kind": kind, "bytes": found.st_size}


def _write(folder: int, name: str, content: bytes) -> None:
    """Write a new file, then rename it; readers see the whole file, and a link is replaced."""
    beside = f".{uuid7()}.part"
    descriptor = os.open(beside, _NEW, 0o644, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(beside, dir_fd=folder)
        raise
