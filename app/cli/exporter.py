"""`agentchord exporter`: the cluster's state for Prometheus, over HTTP."""

import asyncio
from typing import Annotated

import typer
from aiohttp import web

from app.bootstrap import restart_without_keys
from app.cli.cluster import connect
from app.cli.messages import tell
from app.client.client import Client
from app.configuration.settings import load_settings
from app.embedded.connected import connected_settings, database_url, redis_url
from app.errors import ConfigurationError
from app.monitoring.exporter import Exporter
from app.storage import schema
from app.storage.redis import refuse_unsuitable

PORT = 9464


def exporter(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = PORT,
) -> None:
    """Serve the cluster's metrics for Prometheus.

    The metrics cover queues, backlog, rate limits, circuits, budgets, the ledger and the runs. The
    exporter reads the metrics for each request at /metrics. One exporter is enough for a cluster;
    workers serve their own metrics.
    """
    restart_without_keys()
    settings = connected_settings()
    refuse_unsuitable(redis_url(settings))
    schema.refuse_newer(database_url(settings))

    async def serve(client: Client) -> None:
        live_state = client.live_state
        readers = {"postgres": live_state.from_postgres, "redis": live_state.from_redis}
        allowed = (host, *load_settings().monitoring.allowed_hosts)
        application = Exporter(readers, allowed_hosts=allowed).application()
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port"
            ) from error
        at = runner.addresses[0]
        tell(f"metrics at http://{at[0]}:{at[1]}/metrics")
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    connect().run(serve)
