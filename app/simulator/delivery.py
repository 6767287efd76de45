"""Sends one answer, whole or as a stream, or breaks off the answer because of a fault."""

import asyncio
from dataclasses import dataclass, field

from aiohttp import web

from app.simulator.chat import Answer, Refusal, Usage
from app.simulator.containers import ContainerUse
from app.simulator.ledger import NOTHING_SENT, Ledger, Record
from app.simulator.wire import Event, Wire

_JSON = "application/json"
_SSE = "text/event-stream"
_SHORTEST_PAUSE_S = 0.001


@dataclass(slots=True)
class Delivery:
    """The connection to one client. A method that sends an answer also completes the record.

    `used` is the container of the request, or None.
    """

    wire: Wire
    http: web.Request
    record: Record
    ledger: Ledger
    headers: dict[str, str] = field(default_factory=dict)
    started: bool = False
    used: ContainerUse | None = None

    def __post_init__(self) -> None:
        self.headers[self.wire.request_id_header] = self.record.request_id

    def accept(self, usage: Usage) -> None:
        """Record the input tokens, because a provider bills these tokens from here on."""
        self.record.input_tokens = usage.input_tokens
        self.record.cached_tokens = usage.cached_tokens
        self.record.cache_write_tokens = usage.cache_write_tokens
        self.record.web_searches = usage.web_searches

    def bill_container(self) -> None:
        """Record the time of the container, which ends with the request."""
        if self.used is not None and self.record.status is None:
            self.record.container = self.used.container.id
            self.record.container_seconds = self.used.seconds()

    def refuse(self, refusal: Refusal) -> web.Response:
        """Send an error status in the provider's own form."""
        if refusal.retry_after_s is not None:
            self.headers |= self.wire.retry_headers(refusal.retry_after_s)
        self.ledger.close(self.record, status=refusal.status)
        return self._response(self.wire.error(refusal, self.record), status=refusal.status)

    async def whole(self, answer: Answer, *, latency_s: float) -> web.Response:
        """Send the answer as one JSON body."""
        if latency_s > 0:
            await asyncio.sleep(latency_s)
        self.record.output_tokens = answer.usage.output_tokens
        self._close(status=200)
        return self._response(self.wire.answer(answer))

    def free(self, body: bytes) -> web.Response:
        """Send a JSON body that has no tokens and no price."""
        self._close(status=200)
        return self._response(body)

    async def stream(
        self, answer: Answer, *, first_s: float, latency_s: float
    ) -> web.StreamResponse:
        """Send the answer as events, the first event at `first_s`, the last at `latency_s`."""
        response = await self._start(_SSE)
        await self._send(response, self.wire.events(answer), first_s, latency_s)
        self._close(status=200)
        return response

    async def hang(self) -> web.StreamResponse:
        """Wait without an answer; when the client leaves, the server cancels this method."""
        return await asyncio.Future()

    def drop(self) -> web.Response:
        """Reset the connection without sending anything."""
        self._close(status=NOTHING_SENT, finished=False)
        self._transport().abort()
        return web.Response()

    async def garbage(self, answer: Answer) -> web.StreamResponse:
        """Send status 200 and a body that is not valid JSON."""
        self._close(status=200)
        if not answer.request.stream:
            body = self.wire.answer(answer)
            return self._response(body[: len(body) // 2])
        response = await self._start(_SSE)
        await response.write(b'event: message_start\ndata: {"id": "broken", "choices": [{\n\n')
        return response

    async def cut(self, answer: Answer) -> web.StreamResponse:
        """Send half of the answer, then close the connection."""
        if answer.request.stream:
            response = await self._start(_SSE)
            await self._send(response, _first_half(self.wire.events(answer)), 0.0, 0.0)
        else:
            body = self.wire.answer(answer)
            response = await self._start(_JSON, length=len(body))
            await response.write(body[: len(body) // 2])
        self._close(status=200, finished=False)
        self._transport().close()
        return response

    def error_in_200(self, refusal: Refusal) -> web.Response:
        """Send status 200 and a body that reports an error, even if a stream was asked for."""
        self._close(status=200, finished=False)
        return self._response(self.wire.error_in_200(refusal, self.record))

    async def fail_midway(self, answer: Answer, refusal: Refusal) -> web.StreamResponse:
        """Send half of a stream and then an error event.

        If the client did not ask for a stream, send the error at once.
        """
        if not answer.request.stream:
            return self.refuse(refusal)
        response = await self._start(_SSE)
        await self._send(response, _first_half(self.wire.events(answer)), 0.0, 0.0)
        await response.write(self.wire.error_event(refusal, self.record))
        self._close(status=200, finished=False)
        return response

    async def _send(
        self, response: web.StreamResponse, events: list[Event], first_s: float, latency_s: float
    ) -> None:
        """Write events at fixed times; events that are due at the same time share one write."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        step_s = max(0.0, latency_s - first_s) / max(1, len(events) - 1)
        due: list[bytes] = []
        for index, event in enumerate(events):
            wait_s = start_s + first_s + index * step_s - loop.time()
            if wait_s > _SHORTEST_PAUSE_S:
                if due:
                    await response.write(b"".join(due))
                    due.clear()
                await asyncio.sleep(wait_s)
            due.append(event.data)
            self.record.output_tokens = event.output_tokens
        await response.write(b"".join(due))

    async def _start(self, content_type: str, length: int | None = None) -> web.StreamResponse:
        response = web.StreamResponse(headers=self.headers | {"Content-Type": content_type})
        response.content_length = length
        await response.prepare(self.http)
        self.started = True
        return response

    def _close(self, *, status: int, finished: bool = True) -> None:
        self.bill_container()
        self.ledger.close(self.record, status=status, finished=finished)

    def _response(self, body: bytes, status: int = 200) -> web.Response:
        return web.Response(body=body, status=status, headers=self.headers, content_type=_JSON)

    def _transport(self) -> asyncio.Transport:
        transport = self.http.transport
        if transport is None:
            raise ConnectionResetError("the client left")
        return transport


def _first_half(events: list[Event]) -> list[Event]:
    return events[: max(1, len(events) // 2)]
