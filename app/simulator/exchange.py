"""One request from its arrival to its answer. The steps have the same order as at a provider.

The simulator reads the request, checks the key and the model, counts the request against the
limits, applies a fault, waits for the latency, and sends the answer.
"""

import asyncio
import json
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from typing import Any

from aiohttp import web

from app.simulator.chat import Answer, ChatRequest, Refusal, Reply, Usage
from app.simulator.config import SimulatorConfig
from app.simulator.containers import Containers
from app.simulator.delivery import Delivery
from app.simulator.facts import digest_of
from app.simulator.faults import Fault, FaultPlan
from app.simulator.ledger import CLIENT_LEFT, Ledger
from app.simulator.limits import TOKEN_COUNT, Charge, Limits
from app.simulator.markers import NOTHING, Marker, active, markers_in
from app.simulator.replies import reply_to
from app.simulator.wire import CountingWire, Wire

_PROMPT_CHARS = 80

# A step reads a request with its key, and answers the request.
Step = Callable[[Delivery, str], Awaitable[web.StreamResponse]]


class Exchange:
    """Answers requests, and keeps the state that requests share: limits, faults and counters."""

    def __init__(self, config: SimulatorConfig, ledger: Ledger, counts: Ledger) -> None:
        self._ledger = ledger
        self._counts = counts
        # The ids of requests must stay unique across restarts, because clients store the ids in a
        # UNIQUE column. A provider's ids stay unique, too.
        self._id_prefix = secrets.token_hex(6)
        self._ids = 0
        self.reset(config)

    def reset(self, config: SimulatorConfig) -> None:
        """Start again, with full limits and fresh counters."""
        self.config = config
        self._limits = Limits(config.limits, time.monotonic())
        self._faults = FaultPlan(config.faults, config.seed)
        self._jitter = random.Random(config.seed)
        self._arrivals: Counter[str] = Counter()
        self._containers = Containers()

    def reconfigure(self, config: SimulatorConfig) -> None:
        """Change the behaviour; limits and faults that stay the same keep their state."""
        if config.limits != self.config.limits:
            self._limits = Limits(config.limits, time.monotonic())
        if (config.faults, config.seed) != (self.config.faults, self.config.seed):
            self._faults = FaultPlan(config.faults, config.seed)
        self.config = config

    async def serve(self, wire: Wire, http: web.Request) -> web.StreamResponse:
        """Answer one request, and record the request even if the answer fails."""

        async def step(delivery: Delivery, key: str) -> web.StreamResponse:
            return await self._answer(delivery, await self._read(delivery, key, wire.parse))

        return await self._recorded(self._ledger, wire, http, step)

    async def count(self, wire: CountingWire, http: web.Request) -> web.StreamResponse:
        """Count the tokens of a prompt; the request is free and has a ledger of its own."""

        async def step(delivery: Delivery, key: str) -> web.StreamResponse:
            request = await self._read(delivery, key, wire.parse_count)
            return await self._count(delivery, request, wire.count(request.input_tokens))

        return await self._recorded(self._counts, wire, http, step)

    async def _recorded(
        self, ledger: Ledger, wire: Wire, http: web.Request, step: Step
    ) -> web.StreamResponse:
        self._ids += 1
        key = wire.key_in(http.headers)
        record = ledger.open(
            provider=wire.provider,
            endpoint=http.path,
            request_id=f"req_{self._id_prefix}{self._ids:012x}",
            key_sent=bool(key),
        )
        delivery = Delivery(wire, http, record, ledger)
        try:
            return await step(delivery, key)
        except Refusal as refusal:
            return delivery.refuse(refusal)
        except (asyncio.CancelledError, ConnectionResetError):
            delivery.bill_container()
            ledger.client_left(record, status=200 if delivery.started else CLIENT_LEFT)
            raise
        except Exception:
            ledger.close(record, status=500)
            raise

    async def _read(
        self, delivery: Delivery, key: str, parse: Callable[[Any], ChatRequest]
    ) -> ChatRequest:
        raw = await delivery.http.read()
        refusal = _key_problem(key, self.config)
        record = delivery.record
        try:
            body = json.loads(raw)
            record.model = _model_in(body)
            request = parse(body)
        except Refusal as problem:
            raise refusal or problem from None
        except ValueError as error:
            unread = Refusal(400, f"We could not parse the JSON body of your request: {error}")
            raise refusal or unread from error
        record.streamed = request.stream
        record.prompt = request.question[:_PROMPT_CHARS]
        record.prompt_hash = digest_of(request.prompt)
        record.files = request.files
        if refusal is not None:
            raise refusal
        if not self._knows(request.provider, request.model):
            raise Refusal(404)
        return request

    async def _count(
        self, delivery: Delivery, request: ChatRequest, body: bytes
    ) -> web.StreamResponse:
        self._admit(delivery, TOKEN_COUNT, Charge())
        fault = self._faults.fault_for(request.provider, TOKEN_COUNT, request.prompt)
        if fault is not None:
            delivery.record.fault = fault.label
            match fault.kind:
                case "hang":
                    return await delivery.hang()
                case "drop":
                    return delivery.drop()
                case "slow":
                    await asyncio.sleep(fault.delay_s)
                case "status":
                    raise _refusal_of(fault)
                case "error_in_200":
                    return delivery.free(delivery.wire.error(_refusal_of(fault), delivery.record))
                case _:
                    return delivery.free(body[: len(body) // 2])
        return delivery.free(body)

    async def _answer(self, delivery: Delivery, request: ChatRequest) -> web.StreamResponse:
        marker = self._marker(request, delivery.record.prompt_hash)
        reply = reply_to(
            request,
            marker=marker,
            output_tokens=self.config.output_tokens,
            signature=delivery.record.request_id if self.config.signed else "",
        )
        runs = any(call.name == "code_execution" for call in reply.server_calls)
        used = self._containers.use(request, delivery.record.request_id, runs=runs)
        answer = Answer(
            id=delivery.record.request_id.removeprefix("req_"),
            created=int(time.time()),
            request=request,
            reply=reply,
            usage=self._usage(request, reply, marker),
            container=used.container.id if used and runs else None,
        )
        self._admit(delivery, request.model, delivery.wire.charge(answer))
        delivery.used = used
        planned = self._faults.fault_for(request.provider, request.model, request.prompt)
        fault = marker.fault or planned
        latency_s = self._latency_s(marker)
        if fault is not None:
            delivery.record.fault = fault.label
            if fault.kind != "slow":
                return await _strike(delivery, answer, fault, marker.latency_s or 0.0)
            latency_s += fault.delay_s
        delivery.accept(answer.usage)
        if not request.stream:
            return await delivery.whole(answer, latency_s=latency_s)
        first_s = (
            self.config.time_to_first_token_s
            if marker.time_to_first_token_s is None
            else marker.time_to_first_token_s
        )
        return await delivery.stream(answer, first_s=first_s, latency_s=latency_s)

    def _marker(self, request: ChatRequest, prompt_hash: str) -> Marker:
        try:
            markers = markers_in(request.prompt)
        except ValueError as error:
            raise Refusal(400, str(error)) from error
        if not markers:
            return NOTHING
        self._arrivals[prompt_hash] += 1
        return active(markers, self._arrivals[prompt_hash])

    def _usage(self, request: ChatRequest, reply: Reply, marker: Marker) -> Usage:
        whole = reply.read_tokens(request.input_tokens)
        usual = int(whole * self.config.cached_share)
        cached = min(usual if marker.cached_tokens is None else marker.cached_tokens, whole)
        return Usage(
            input_tokens=whole,
            cached_tokens=cached,
            cache_write_tokens=min(marker.cache_write_tokens or 0, whole - cached),
            output_tokens=reply.output_tokens,
            reasoning_tokens=reply.reasoning_tokens,
            web_searches=reply.uses("web_search"),
        )

    def _admit(self, delivery: Delivery, model: str, charge: Charge) -> None:
        wire = delivery.wire
        group = self._limits.group_of(wire.provider, model)
        if group is None:
            return
        # A provider counts a request at the request's arrival, and not after the reading of the
        # body.
        now_s = delivery.record.arrived_s
        excess = group.admit(charge, now_s)
        delivery.headers |= wire.limit_headers(group.states(now_s))
        if excess is not None:
            raise wire.over_limit(excess, model)

    def _latency_s(self, marker: Marker) -> float:
        if marker.latency_s is not None:
            return marker.latency_s
        jitter_s = self.config.jitter_s
        return self.config.latency_s + (self._jitter.random() * jitter_s if jitter_s else 0.0)

    def _knows(self, provider: str, model: str) -> bool:
        return any(fnmatchcase(f"{provider}:{model}", pattern) for pattern in self.config.models)


def _model_in(body: Any) -> str:
    """Return the model that a request names, even if the rest of the request is refused."""
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else ""


def _key_problem(key: str, config: SimulatorConfig) -> Refusal | None:
    if not key:
        return Refusal(401, "You didn't provide an API key.")
    return Refusal(401) if key in config.invalid_keys else None


async def _strike(
    delivery: Delivery, answer: Answer, fault: Fault, delay_s: float
) -> web.StreamResponse:
    """Apply a fault instead of sending the answer."""
    refusal = _refusal_of(fault)
    if delay_s > 0:
        await asyncio.sleep(delay_s)
    if fault.kind == "status":
        raise refusal
    delivery.accept(answer.usage)
    match fault.kind:
        case "hang":
            return await delivery.hang()
        case "drop":
            return delivery.drop()
        case "garbage":
            return await delivery.garbage(answer)
        case "cut_stream":
            return await delivery.cut(answer)
        case "error_in_200":
            return delivery.error_in_200(refusal)
        case _:
            return await delivery.fail_midway(answer, refusal)


def _refusal_of(fault: Fault) -> Refusal:
    return Refusal(fault.status, code=fault.code, retry_after_s=fault.retry_after_s)
