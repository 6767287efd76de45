"""The output of a stack's processes, which goes to one stream or to one file per process."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from app.domain.plain_text import shown

MAX_LINE_BYTES = 1_000_000
#: The beginning of the line in which a worker explains its refusal to start.
REFUSAL = "agentchord worker: "


class Output:
    """The output of all processes.

    Args:
        stream: Stream for the lines of all processes, or None. In the stream, each line begins with
            the name of the line's process.
        folder: Folder in which each process gets a file of its own, or None. If a folder is given,
            no lines go to the stream.
        say: A function that prints a line for the user about the supervisor's work.
    """

    def __init__(
        self, *, stream: BinaryIO | None, folder: Path | None, say: Callable[[str], None]
    ) -> None:
        self._stream = stream
        self._folder = folder
        self._last_words: dict[str, str] = {}
        self.say = say

    def last_words(self, name: str) -> str:
        """Return a process's last line that is not empty, or the line of its refusal to start."""
        return self._last_words.get(name, "nothing")

    async def copy(self, name: str, reader: asyncio.StreamReader) -> None:
        """Copy a process's lines to the stream or to a file, until the process closes the pipe."""
        prefix, refused = f"{name:<9} | ".encode(), False
        with self._log(name) as log:
            while line := await _read_line(reader):
                text = line.decode(errors="replace").strip()
                if text and not refused:
                    # The line of a refusal explains more than the traceback that follows it.
                    refused = text.startswith(REFUSAL)
                    self._last_words[name] = text
                if log is not None:
                    log.write(line)
                elif text and self._stream is not None:
                    shown_line = shown(line.decode(errors="replace").rstrip())
                    self._stream.write(prefix + shown_line.encode() + b"\n")
                    self._stream.flush()

    def _log(self, name: str) -> contextlib.AbstractContextManager[BinaryIO | None]:
        if self._folder is None:
            return contextlib.nullcontext()
        return (self._folder / f"{name}.log").open("ab", buffering=0)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line, or the first part of a line that is too long."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await reader.readexactly(error.consumed) + b"\n"
