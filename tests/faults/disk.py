"""A small file system in memory for Postgres and Redis, which can become full at any moment.

Only a user who may mount has such a file system. Other users have a plain folder, which cannot
become full.
"""

import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Self

ROOMY = "2g"


class Disk:
    """A file system.

    Args:
        folder: Folder in which it is mounted; it is created.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._folder.mkdir()
        if may_mount():
            _mount("-t", "tmpfs", "-o", f"size={ROOMY},mode=0700", "tmpfs", str(self._folder))
        return self

    def __exit__(self, *_: object) -> None:
        if may_mount():
            subprocess.run(["umount", "--lazy", str(self._folder)], check=True)

    def fill(self) -> None:
        """Leave no free block: the file system becomes as small as its content."""
        while True:
            found = os.statvfs(self._folder)
            used = (found.f_blocks - found.f_bfree) * found.f_frsize
            try:
                return self._resize(str(used))
            except subprocess.CalledProcessError:
                # The kernel refuses a size below the content, which has grown meanwhile.
                if os.statvfs(self._folder).f_bfree >= found.f_bfree:
                    raise

    def free(self) -> None:
        """Make room again."""
        self._resize(ROOMY)

    def _resize(self, size: str) -> None:
        _mount("-o", f"remount,size={size}", str(self._folder))


@cache
def may_mount() -> bool:
    """Whether this user may mount a file system in memory."""
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(
            ["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False
        )
        if tried.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return tried.returncode == 0


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
