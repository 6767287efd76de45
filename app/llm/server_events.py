"""Reads the events of a stream, also from servers that leave parts of the standard out.

Servers cut a character between two events, send events without the blank line between them, or
write a document without the field ``data`` before it. The SDKs' own readers refuse such streams,
and the answer is lost although all of it has come.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.llm.errors import reports_failure
from app.llm.wire import BOM, PROTOCOL_ERRORS, NotTheProtocol, read_json

#: Seconds in which the rest of a stream is read after its end, so that its connection can be used
#: again.
DRAIN_S = 0.5
_LAST_EVENT = b"[DONE]"
# Events with a usage that are read after the last event.
_MOST_LATE = 100
_LINE_END = re.compile(rb"\r\n|\r|\n")
_OBJECT = re.compile(rb"\s*\{")
_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})
_OPENINGS = (b"{", b"[")
_ENDINGS = (b"}", b"]")
# The first line of a stream: a comment, or one of the fields.
_FIRST_LINE = re.compile(rb"(?:data|event|id|retry)?:")
# The names of events that are also the type in their data, which some servers leave out there.
_TYPE = re.compile(rb"(?:message|content_block)_[a-z]+|response\.[a-z_.]+")
# Signs of life that some servers send as events and not as comments, some of them with the time.
_SIGN_OF_LIFE = re.compile(
    rb"[\s:]*(?:(?:ping|pong|heartbeat|keep[-_ ]?alive)\b|\d{4}-\d\d-\d\d[ T]).{0,40}",
    re.IGNORECASE,
)
# A failure that is told as a text.
_FAILURE = re.compile(rb"(?:internal (?:server )?)?error\b", re.IGNORECASE)
# A line, or the lines of an event together, may be as long as a whole answer.
_MOST_BYTES = 16 * 1024 * 1024
_MOST_LINES = 10_000
_PIECE_BYTES = 65_536
# The lines of an event that are no whole document yet are read again for each further line. After
# this number of bytes, only a blank line ends the event.
_MOST_CHECKED = 1_000_000
# A start that is longer than this, and still blank, is not looked at any further.
_MOST_BLANK = 100_000


async def document_or_stream(
    chunks: AsyncIterable[bytes], headers: Mapping[str, str]
) -> tuple[bytes | None, AsyncIterator[bytes]]:
    """Read a body as what it is: one document, or a stream of events.

    The body itself decides, because servers and proxies give streams the type of plain text or of
    JSON, answer in JSON when they were asked for a stream, and stream when they were not asked.

    Args:
        chunks: The body, in pieces of any size.
        headers: Headers of the answer.

    Returns:
        The whole body, or None if it is a stream; and the pieces of the body.
    """
    start, whole = await _start_of(chunks)
    if _is_stream(start, headers):
        return None, whole
    content = b"".join([chunk async for chunk in whole])
    return None if _is_lines(content) else content, _once(content)


def _is_lines(content: bytes) -> bool:
    """Return whether a body has documents one after the other, each in a line."""
    content = content.lstrip()
    end = _LINE_END.search(content)
    if end is None or not content.startswith(b"{"):
        return False
    return content[: end.start()].rstrip().endswith(b"}") and bool(
        _OBJECT.match(content, end.end())
    )


async def _start_of(chunks: AsyncIterable[bytes]) -> tuple[bytes, AsyncIterator[bytes]]:
    """Read the beginning of a body, without blanks and byte order mark; return the whole, too."""
    iterator = aiter(chunks)
    read = start = b""
    async for chunk in iterator:
        read += chunk
        start = read.removeprefix(BOM).lstrip()
        if len(start) > len(BOM) or len(read) > _MOST_BLANK:
            break

    async def whole() -> AsyncIterator[bytes]:
        yield read
        async for chunk in iterator:
            yield chunk

    return start, whole()


async def _once(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _PIECE_BYTES):
        yield content[start : start + _PIECE_BYTES]
        await asyncio.sleep(0)  # other work comes between


def _is_stream(start: bytes, headers: Mapping[str, str]) -> bool:
    if _FIRST_LINE.match(start):
        return True
    said = headers.get("content-type", "").startswith("text/event-stream")
    return said and not start.startswith((*_OPENINGS, b"<"))


async def events_of(chunks: AsyncIterable[bytes]) -> AsyncIterator[Any]:
    """Yield the data of each event of a stream; None stands for the event [DONE].

    Empty events are left out. After [DONE], only the objects with a usage follow, because some
    servers count the tokens last.

    Args:
        chunks: The body of the answer, in pieces of any size.

    Raises:
        NotTheProtocol: If the data of an event is not JSON.
        Exception: Any exception of the transport.
    """
    events = _events(_lines(chunks))
    async for event in events:
        if event.is_last:
            late = await _drained(events)
            yield None
            for value in late:
                yield value
            return
        value = event.value()
        if value is not None:
            yield value


@dataclass(slots=True)
class _Event:
    """One event: its name, the lines of its data, and whether the stream ended inside it.

    ``size`` is the number of bytes of the data. ``checked`` is the number of bytes that were read
    so far to find out whether the data are whole.
    """

    name: bytes = b""
    data: list[bytes] = field(default_factory=list)
    cut: bool = False
    size: int = 0
    checked: int = 0

    @property
    def is_last(self) -> bool:
        """Whether the event says that the stream is over."""
        return bool(self.data) and self.data[0].lstrip().startswith(_LAST_EVENT)

    @property
    def is_whole(self) -> bool:
        """Whether the lines so far are a whole document, so that another line is not a part."""
        if self.is_last:
            return True
        if self.checked > _MOST_CHECKED or not self.data[-1].rstrip().endswith(_ENDINGS):
            return False
        self.checked += self.size
        try:
            return isinstance(read_json(b"\n".join(self.data)), dict | list)
        except PROTOCOL_ERRORS:
            return False

    def value(self) -> Any:
        """Return the data; None if the event has none that matters."""
        data = b"\n".join(self.data).strip()
        if not data:
            return None
        try:
            value = read_json(data)
        except PROTOCOL_ERRORS as error:
            return self._other_than_json(data, error)
        if self.name == b"error" and not (isinstance(value, dict) and value.get("type") == "error"):
            inner = value.get("error") if isinstance(value, dict) else None
            return {"error": inner or value}
        if isinstance(value, dict) and "type" not in value and _TYPE.fullmatch(self.name):
            return {"type": self.name.decode(), **value}
        return value

    def _other_than_json(self, data: bytes, problem: Exception) -> Any:
        """Return the value of data that is no document."""
        if self.name == b"error" or _FAILURE.match(data):
            return {"error": data.decode("utf-8", "replace")}
        with contextlib.suppress(*PROTOCOL_ERRORS):
            # A gateway that lost its server reports it in the middle of that server's event.
            last = read_json(self.data[-1])
            if reports_failure(last):
                return last
        # An event in which the stream broke off has not come at all.
        if self.cut or _SIGN_OF_LIFE.fullmatch(self.name) or _SIGN_OF_LIFE.fullmatch(data):
            return None
        raise NotTheProtocol(f"an event is not JSON: {problem}") from problem


async def _events(lines: AsyncIterable[bytes]) -> AsyncIterator[_Event]:
    """Yield the events; an event ends at a blank line, or where the next one begins."""
    event = _Event()
    async for line in lines:
        if not line:
            yield event
            event = _Event()
            continue
        name, _, value = line.partition(b":")
        if name in _FIELDS:
            value = value.removeprefix(b" ")
        elif line.startswith(_OPENINGS) or (event.data and not event.is_whole):
            name, value = b"data", line  # a document, or its next line, without the field
        begins = name == b"data" or (name == b"event" and event.name)
        if begins and event.data and event.is_whole:
            yield event
            event = _Event()
        if name == b"data":
            while value.startswith(b"data:"):  # a proxy that made an event of each line
                value = value.removeprefix(b"data:").removeprefix(b" ")
            event.data.append(value)
            event.size += len(value)
            if len(event.data) > _MOST_LINES or event.size > _MOST_BYTES:
                raise NotTheProtocol("an event of the stream does not end")
        elif name == b"event":
            event.name = value.strip()
    event.cut = True
    yield event


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines of a stream without their ends; a line may come in many chunks."""
    pieces: list[bytes] = []
    ended_in_return = False
    begun = False
    size = 0
    async for chunk in chunks:
        if not begun:
            # The chunk that ``_start_of`` has read is longer than the mark.
            chunk, begun = chunk.removeprefix(BOM), True  # noqa: PLW2901
        if ended_in_return and chunk:
            chunk, ended_in_return = chunk.removeprefix(b"\n"), False  # noqa: PLW2901
        first, *others = _LINE_END.split(chunk)
        pieces.append(first)
        size += len(first)
        if size > _MOST_BYTES:
            raise NotTheProtocol("a line of the stream does not end")
        for line in others:
            yield b"".join(pieces)
            pieces, size = [line], len(line)
        ended_in_return = chunk.endswith(b"\r") or (ended_in_return and not chunk)
    if last := b"".join(pieces):
        yield last


async def _drained(events: AsyncIterator[_Event]) -> list[Mapping[str, Any]]:
    """Read the rest of a stream, and return the first objects with a usage.

    Whatever goes wrong there costs nothing.
    """
    late: list[Mapping[str, Any]] = []
    with contextlib.suppress(Exception):
        async with asyncio.timeout(DRAIN_S):
            async for event in events:
                if len(late) < _MOST_LATE and any(b"usage" in line for line in event.data):
                    with contextlib.suppress(NotTheProtocol):
                        value = event.value()
                        late += [value] if isinstance(value, dict) else []
    return late
