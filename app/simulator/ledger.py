"""The served requests: one record per request that arrived, and running totals.

Tests compare AgentChord's own ledger and limiter with this one.
"""

import json
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

CLIENT_LEFT = 499
"""Status of a request whose client left before anything was sent, as nginx writes it."""
NOTHING_SENT = 0
"""Status of a request whose connection the simulator closed without an answer."""


@dataclass(slots=True)
class Record:
    """One request.

    Attributes:
        seq: number from 1, by arrival; a reset does not start again at 1.
        arrived_at: aware UTC time, ISO 8601.
        arrived_s: the same on the monotonic clock, which all processes of a machine share.
        provider: `openai` or `anthropic`.
        endpoint: path of the request.
        model: model name; empty if the body could not be read.
        request_id: id in the response's header.
        key_sent: whether the request carried any API key.
        status: HTTP status; None while under way, 499 if the client left before it, 0 if the
            simulator closed the connection without one.
        streamed: whether the client asked for a stream.
        finished: whether the whole answer was sent; false when the client left.
        fault: the fault that was injected, or None.
        input_tokens: tokens of the whole prompt, cached ones included; 0 for an error.
        cached_tokens: those of them that were read from the prompt cache.
        cache_write_tokens: those of them that were written to it.
        output_tokens: tokens sent so far, reasoning included.
        prompt: the first 80 characters of the last user text.
        prompt_hash: hash of all system and user texts.
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
    prompt: str = ""
    prompt_hash: str = ""
    seconds: float = 0.0


class Ledger:
    """The records, the newest `size` of them, and totals over all.

    Args:
        size: records kept in memory; totals go on counting.
        path: file to which every closed record is appended as a line of JSON.
    """

    def __init__(self, *, size: int, path: Path | None = None) -> None:
        self._size = size
        self._file: TextIO | None = path.open("a", buffering=1, encoding="utf-8") if path else None
        self._seq = 0
        self.clear()

    def clear(self) -> None:
        """Delete every record; requests that are under way then count nowhere."""
        self._records: deque[Record] = deque(maxlen=self._size)
        self._cleared_at_seq = self._seq
        self._in_flight = 0
        self._peak_in_flight = 0
        self._disconnected = 0
        self._by_status: Counter[str] = Counter()
        self._by_fault: Counter[str] = Counter()
        self._by_model: dict[str, Counter[str]] = {}

    def open(self, *, provider: str, endpoint: str, request_id: str, key_sent: bool) -> Record:
        """Record a request at its arrival; `close` completes it."""
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
        """Complete the record of a client that left; `status` is the one already sent."""
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
        """Return totals: requests by status and fault, tokens by model, clients that left."""
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
        )
