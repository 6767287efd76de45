"""The embedded Postgres and Redis of one home, for processes without DATABASE_URL and REDIS_URL."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from app.embedded.postgres import PostgresKind
from app.embedded.redis import RedisKind
from app.embedded.server import SharedServer


@dataclass(frozen=True, kw_only=True)
class ServiceUrls:
    """URLs of the embedded services.

    Attributes:
        database_url: ``postgresql+psycopg://`` URL of Postgres, over a Unix socket.
        redis_url: ``unix://`` URL of Redis, for redis-py.
    """

    database_url: str
    redis_url: str


class Services:
    """The embedded Postgres and Redis of one home; ``postgres`` and ``redis`` can also start alone.

    Several processes may use one home at once. The servers end when the last of these processes
    ends, even if that process is killed. The servers are for one machine and have no backups; in
    production, set DATABASE_URL and REDIS_URL instead.

    Args:
        home: Folder of the data, the logs and the locks (AGENTCHORD_HOME).

    Example:
        with Services(home) as urls:
            engine = create_async_engine(urls.database_url)
    """

    def __init__(self, home: Path) -> None:
        self.postgres = SharedServer(PostgresKind(), home)
        self.redis = SharedServer(RedisKind(), home)

    def start(self) -> ServiceUrls:
        """Start both servers at the same time, or join the servers that already run.

        The first start takes about 2 s.

        Raises:
            EmbeddedServicesError: If one server cannot be started; the other server is then
                stopped again.
        """
        fresh = [server for server in (self.postgres, self.redis) if not server.held]
        try:
            with ThreadPoolExecutor(2, thread_name_prefix="embedded") as pool:
                database_url = pool.submit(self.postgres.start)
                redis_url = pool.submit(self.redis.start)
            return ServiceUrls(database_url=database_url.result(), redis_url=redis_url.result())
        except BaseException:
            for server in fresh:
                server.stop()
            raise

    def launch(self, *, postgres: bool, redis: bool) -> None:
        """Launch the servers that are named, at the same time; do not wait until they answer.

        Raises:
            EmbeddedServicesError: If a server cannot be launched.
        """
        wanted = [(postgres, self.postgres), (redis, self.redis)]
        with ThreadPoolExecutor(2, thread_name_prefix="embedded") as pool:
            launches = [pool.submit(server.launch) for given, server in wanted if given]
        for launch in launches:
            launch.result()

    def stop(self) -> None:
        """Leave both servers; if no other process uses a server, wait for the end of that server.

        Raises:
            EmbeddedServicesError: If a server does not end.
        """
        with ThreadPoolExecutor(2, thread_name_prefix="embedded") as pool:
            stops = [pool.submit(server.stop) for server in (self.redis, self.postgres)]
        for stop in stops:
            stop.result()

    def __enter__(self) -> ServiceUrls:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
