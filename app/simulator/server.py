"""The HTTP server, with the routes of the providers and the control routes under `/_simulator`."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from app.outbound.own_hosts import own_hosts_only
from app.simulator.anthropic_wire import AnthropicWire
from app.simulator.config import SimulatorConfig, config_as_json, config_with
from app.simulator.exchange import Exchange
from app.simulator.ledger import Ledger, Record
from app.simulator.openai_wire import OpenAIWire
from app.simulator.responses_wire import ResponsesWire

_BACKLOG = 2048
_MAX_BODY_BYTES = 64 * 1024 * 1024
_SHUTDOWN_S = 0.1
_LISTED = {
    "openai": ("gpt-4o", "gpt-4o-mini", "gpt-4.1-mini", "gpt-5.4", "gpt-5.4-mini", "sim-large"),
    "anthropic": (
        "claude-haiku-4-5",
        "claude-sonnet-4-6",
        "claude-sonnet-5",
        "claude-opus-5",
        "sim-large",
    ),
}
_RELEASED_S = 1735689600


class Simulator:
    """The simulated APIs of OpenAI and Anthropic, in the event loop of this process.

    The replies are computed from the prompt and have no intelligence. The limits and errors are
    similar to the limits and errors of the providers. This class shares the CPU with the code under
    test; for load tests, use `run_in_process`.

    Args:
        config: the behaviour at the start.
        host: address at which the simulator listens.
        port: port at which the simulator listens; 0 takes a free port.
        ledger_path: file to which every record is appended as a line of JSON.

    Example:
        async with Simulator(SimulatorConfig(latency_s=0.2)) as sim:
            client = AsyncOpenAI(base_url=sim.openai_base_url, api_key="any", max_retries=0)
    """

    def __init__(
        self,
        config: SimulatorConfig | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ledger_path: Path | None = None,
    ) -> None:
        self._first_config = config or SimulatorConfig()
        self._host = host
        self._port = port
        self._ledger = Ledger(size=self._first_config.ledger_size, path=ledger_path)
        self._counts = Ledger(size=self._first_config.ledger_size)
        self._exchange = Exchange(self._first_config, self._ledger, self._counts)
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_S,
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start to listen.

        Raises:
            OSError: If the port is in use.
        """
        await self._runner.setup()
        # The default backlog of 128 is too short, because hundreds of agents may connect within one
        # millisecond.
        site = web.TCPSite(self._runner, self._host, self._port, backlog=_BACKLOG)
        await site.start()
        self._port = site.port

    async def stop(self) -> None:
        """Close every connection and the ledger's file."""
        await self._runner.cleanup()
        self._ledger.close_file()

    @property
    def port(self) -> int:
        """The port on which the simulator listens."""
        return self._port

    @property
    def openai_base_url(self) -> str:
        """`base_url` for OpenAI clients."""
        return f"http://{self._host}:{self._port}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """`base_url` for Anthropic clients."""
        return f"http://{self._host}:{self._port}"

    @property
    def config(self) -> SimulatorConfig:
        """The present configuration."""
        return self._exchange.config

    def ledger(self, since: int = 0) -> list[Record]:
        """Return the records with a sequence number above `since`, oldest first.

        The record of a request that is under way has no status.
        """
        return self._ledger.records(since)

    def counts(self) -> list[Record]:
        """Return the records of the requests that counted the tokens of prompts, oldest first.

        These requests are free, so these requests are in no other record and in no total.
        """
        return self._counts.records()

    def summary(self) -> dict[str, Any]:
        """Return totals over all records; see `Ledger.summary`."""
        return self._ledger.summary()

    def configure(self, **changes: Any) -> None:
        """Change the behaviour from the next request on; see `config_with`.

        Raises:
            ValueError: If a name is unknown, or a value is out of range.
        """
        self._exchange.reconfigure(config_with(self.config, changes))

    def reset(self) -> None:
        """Restore the first configuration, with an empty ledger, full limits and new counters."""
        self._ledger.clear()
        self._counts.clear()
        self._exchange.reset(self._first_config)

    def _application(self) -> web.Application:
        application = web.Application(
            client_max_size=_MAX_BODY_BYTES, middlewares=[own_hosts_only([self._host])]
        )
        serve, count = self._exchange.serve, self._exchange.count
        application.add_routes(
            [
                web.post("/v1/chat/completions", partial(serve, OpenAIWire())),
                web.post("/v1/responses", partial(serve, ResponsesWire())),
                web.post("/v1/messages", partial(serve, AnthropicWire())),
                web.post("/v1/responses/input_tokens", partial(count, ResponsesWire())),
                web.post("/v1/messages/count_tokens", partial(count, AnthropicWire())),
                web.get("/v1/models", _models),
                web.get("/_simulator/health", self._get_health),
                web.get("/_simulator/ledger", self._get_ledger),
                web.get("/_simulator/ledger/summary", self._get_summary),
                web.get("/_simulator/counts", self._get_counts),
                web.get("/_simulator/config", self._get_config),
                web.post("/_simulator/config", self._post_config),
                web.post("/_simulator/reset", self._post_reset),
            ]
        )
        return application

    async def _get_health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _get_ledger(self, request: web.Request) -> web.Response:
        try:
            since = int(request.query.get("since", "0"))
        except ValueError:
            problem = "the parameter 'since' is not a whole number: give a whole number"
            return web.json_response({"error": problem}, status=400)
        return web.json_response([dataclasses.asdict(record) for record in self.ledger(since)])

    async def _get_summary(self, _request: web.Request) -> web.Response:
        return web.json_response(self.summary())

    async def _get_counts(self, _request: web.Request) -> web.Response:
        return web.json_response([dataclasses.asdict(record) for record in self.counts()])

    async def _get_config(self, _request: web.Request) -> web.Response:
        return web.json_response(config_as_json(self.config))

    async def _post_config(self, request: web.Request) -> web.Response:
        try:
            self.configure(**json.loads(await request.read()))
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(config_as_json(self.config))

    async def _post_reset(self, _request: web.Request) -> web.Response:
        self.reset()
        return web.json_response({"status": "ok"})


async def _models(request: web.Request) -> web.Response:
    """List the models of a provider.

    Both providers use the same path. Only Anthropic's clients send a version header.
    """
    if "anthropic-version" in request.headers:
        models: list[dict[str, Any]] = [
            {
                "id": name,
                "type": "model",
                "display_name": name,
                "created_at": "2025-01-01T00:00:00Z",
                "lifecycle": "active",
            }
            for name in _LISTED["anthropic"]
        ]
        return web.json_response(
            {
                "data": models,
                "has_more": False,
                "first_id": models[0]["id"],
                "last_id": models[-1]["id"],
            }
        )
    models = [
        {"id": name, "object": "model", "created": _RELEASED_S, "owned_by": "simulator"}
        for name in _LISTED["openai"]
    ]
    return web.json_response({"object": "list", "data": models})
