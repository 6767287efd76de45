"""Where the lines go that the processes of a stack write."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 1_000_000
#: How a worker begins the line in which it says why it does not start.
REFUSAL = "agentchord worker: "


class Output:
    """Takes the lines of all processes.

    Args:
        stream: Stream that takes every line, each with its process's name before it; or None.
        folder: Folder that takes one file per process instead.
        say: Tells the user in one line what the supervisor does.
    """

    def __init__(
        self, *, stream: BinaryIO | None, folder: Path | None, say: Callable[[str], None]
    ) -> None:
        self._stream = stream
        self._folder = folder
        self._last_words: dict[str, str] = {}
        self.say = say

    def last_words(self, name: str) -> str:
        """The last line of a process that says anything, or why it refused to start."""
        return self._last_words.get(name, "nothing")

    async def copy(self, name: str, reader: asyncio.StreamReader) -> None:
        """Copy a process's lines to where they belong, until it closes its end."""
        prefix, refused = f"{name:<9} | ".encode(), False
        with self._log(name) as log:
            while line := await _read_line(reader):
                text = line.decode(errors="replace").strip()
                if text and not refused:
                    # What is said on purpose explains more than the traceback of an exit.
                    refused = text.startswith(REFUSAL)
                    self._last_words[name] = text
                if log is not None:
                    log.write(line)
                elif text and self._stream is not None:
                    self._stream.write(prefix + line.rstrip() + b"\n")
                    self._stream.flush()

    def _log(self, name: str) -> contextlib.AbstractContextManager[BinaryIO | None]:
        if self._folder is None:
            return contextlib.nullcontext()
        return (self._folder / f"{name}.log").open("ab", buffering=0)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """The next line, or what there is of one that is too long."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await reader.readexactly(error.consumed) + b"\n"
