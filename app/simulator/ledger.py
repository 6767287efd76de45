"""The ledger of the simulator: one record for each request that arrived, and running totals.

Tests compare AgentChord's own ledger and limiter with this ledger.
"""

import json
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

CLIENT_LEFT = 499
"""Status of a request if its client left before anything was sent; nginx uses this number too."""
NOTHING_SENT = 0
"""Status of a request if the simulator closed the connection without an answer."""


@dataclass(slots=True)
class Record:
    """One request.

    Attributes:
        seq: sequence number in the order of arrival, from 1; after a reset, the numbers go on.
        arrived_at: time of arrival in UTC, in ISO 8601 with the offset.
        arrived_s: time of arrival on the monotonic clock, which all processes of a machine share.
        provider: `openai` or `anthropic`.
        endpoint: path of the request.
        model: name of the model; empty if the body could not be read.
        request_id: id in the header of the response.
        key_sent: whether the request carried any API key.
        status: HTTP status. The status is None while the request is under way, 499 if the client
            left before a status was sent, and 0 if the simulator closed the connection without a
            status.
        streamed: whether the client asked for a stream.
        finished: whether the whole answer was sent; false if the client left.
        fault: the fault that was injected, or None.
        input_tokens: tokens of the whole prompt, including cached tokens; 0 for an error.
        cached_tokens: input tokens that were read from the prompt cache.
        cache_write_tokens: input tokens that were written to the prompt cache.
        output_tokens: output tokens that have been sent so far, including reasoning tokens.
        web_searches: searches of the web that brought a result.
        container: id of the container in which programs ran or might have run; None without a
            container.
        container_seconds: seconds of the container that this request pays, multiplied by the
            container's gigabytes.
        prompt: the first 80 characters of the last user text.
        prompt_hash: hash of all system and user texts.
        files: beginning of the SHA-256 of each image and PDF of the request, in order.
        seconds: time from arrival to the end of the answer.
    """

    seq: int
    arrived_at: str
    arrived_s: float
    provider: str
    endpoint: str
    request_id: str
    key_sent: bool
    model: str = ""
    status: int | None = None
    streamed: bool = False
    finished: bool = False
    fault: str | None = None
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    web_searches: int = 0
    container: str | None = None
    container_seconds: int = 0
    prompt: str = ""
    prompt_hash: str = ""
    files: tuple[str, ...] = ()
    seconds: float = 0.0


class Ledger:
    """The newest `size` records, and totals over all records.

    Args:
        size: number of records that are kept in memory; the totals also count older records.
        path: file to which every closed record is appended as a line of JSON.
    """

    def __init__(self, *, size: int, path: Path | None = None) -> None:
        self._size = size
        self._file: TextIO | None = path.open("a", buffering=1, encoding="utf-8") if path else None
        self._seq = 0
        self.clear()

    def clear(self) -> None:
        """Delete every record; the totals will not count the requests that are under way now."""
        self._records: deque[Record] = deque(maxlen=self._size)
        self._cleared_at_seq = self._seq
        self._in_flight = 0
        self._peak_in_flight = 0
        self._disconnected = 0
        self._by_status: Counter[str] = Counter()
        self._by_fault: Counter[str] = Counter()
        self._by_model: dict[str, Counter[str]] = {}

    def open(self, *, provider: str, endpoint: str, request_id: str, key_sent: bool) -> Record:
        """Record a request at its arrival; `close` completes the record."""
        self._seq += 1
        self._in_flight += 1
        self._peak_in_flight = max(self._peak_in_flight, self._in_flight)
        record = Record(
            seq=self._seq,
            arrived_at=datetime.now(UTC).isoformat(),
            arrived_s=time.monotonic(),
            provider=provider,
            endpoint=endpoint,
            request_id=request_id,
            key_sent=key_sent,
        )
        self._records.append(record)
        return record

    def client_left(self, record: Record, *, status: int = CLIENT_LEFT) -> None:
        """Complete a record if the client left; `status` is the status that was already sent."""
        if record.status is None and record.seq > self._cleared_at_seq:
            self._disconnected += 1
        self.close(record, status=status, finished=False)

    def close(self, record: Record, *, status: int, finished: bool = True) -> None:
        """Complete a record; a second call changes nothing."""
        if record.status is not None:
            return
        record.status = status
        record.finished = finished
        record.seconds = round(time.monotonic() - record.arrived_s, 6)
        if record.seq > self._cleared_at_seq:
            self._in_flight -= 1
            self._count(record)
        if self._file is not None:
            self._file.write(json.dumps(asdict(record)) + "\n")

    def records(self, since: int = 0) -> list[Record]:
        """Return the records with a sequence number above `since`, oldest first."""
        return [record for record in self._records if record.seq > since]

    def summary(self) -> dict[str, Any]:
        """Return totals: requests by status and fault, tokens by model, and clients that left."""
        return {
            "requests": self._seq - self._cleared_at_seq,
            "in_flight": self._in_flight,
            "peak_in_flight": self._peak_in_flight,
            "disconnected": self._disconnected,
            "by_status": dict(self._by_status),
            "by_fault": dict(self._by_fault),
            "by_model": {name: dict(totals) for name, totals in self._by_model.items()},
        }

    def close_file(self) -> None:
        """Close the file of records, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _count(self, record: Record) -> None:
        self._by_status[str(record.status)] += 1
        if record.fault is not None:
            self._by_fault[record.fault] += 1
        totals = self._by_model.setdefault(f"{record.provider}/{record.model}", Counter())
        totals.update(
            requests=1,
            input_tokens=record.input_tokens,
            cached_tokens=record.cached_tokens,
            cache_write_tokens=record.cache_write_tokens,
            output_tokens=record.output_tokens,
            web_searches=record.web_searches,
        )
