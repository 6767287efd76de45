"""Celery's connections to Redis: they renew themselves after a refusal by the server.

Without these classes, a Redis that is a replica now, or that refuses writes, would end every Celery
worker at once, because kombu takes such an answer for an error of the program. The classes are
named in ``app.celery`` and celeryconfig.py.
"""

from typing import Any, ClassVar

from celery.app import amqp
from celery.backends.redis import RedisBackend
from kombu import Connection
from kombu.transport import redis as kombu_redis
from redis.connection import Connection as TcpConnection

from app.storage.redis import connect_redis, refuse_unsuitable, renewing


class Channel(kombu_redis.Channel):
    """A channel of the broker."""

    _shared_client: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Return a client of the channel's pool; all uses of the pool share one client.

        kombu makes a client for each message and each acknowledgement, at 0.2 ms of CPU each.
        """
        if asynchronous:  # the connection of such a client is its own
            return super()._create_client(asynchronous=True)  # type: ignore[misc]
        if self._shared_client is None or self._shared_client.connection_pool is not self.pool:
            self._shared_client = super()._create_client()  # type: ignore[misc]
        return self._shared_client

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]
        parameters["connection_class"] = renewing(parameters["connection_class"])
        return parameters


class Transport(kombu_redis.Transport):
    """The transport of the broker."""

    Channel = Channel


class BrokerConnection(Connection):
    """A connection to the broker, whatever the scheme of its URL.

    Attributes:
        transport_class: The transport of all connections of this process.
    """

    transport_class: ClassVar[type[Transport]] = Transport

    def get_transport_cls(self) -> type[Transport]:
        """Return the transport."""
        return self.transport_class


class AMQP(amqp.AMQP):
    """The messages of the Celery application."""

    Connection = BrokerConnection


class Backend(RedisBackend):
    """The store of results, which only the counters of chords need."""

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._params_from_url(url, defaults)  # type: ignore[misc]
        plain = parameters.get("connection_class", TcpConnection)
        return parameters | {"connection_class": renewing(plain)}


def prepare_flower(url: str) -> None:
    """Check the broker of Flower, and give Flower's page of queues a connection of AgentChord.

    Flower has a reading of its own for each form of URL, and loses parts of some forms: for a Unix
    socket, for example, the user and the database.

    Args:
        url: URL of the broker, as Celery has it.

    Raises:
        ConfigurationError: If AgentChord cannot work with this Redis.
    """
    from flower.utils import broker  # type: ignore[import-untyped]

    refuse_unsuitable(url)

    class Queues(broker.RedisBase):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.redis = connect_redis(url)

    broker.Redis = broker.RedisSsl = broker.RedisSocket = Queues
