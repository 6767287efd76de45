"""The containers of the simulated providers, and the billed time of the containers.

The simulator's own clock measures this time. A container is billed from its first use until the
container has been idle for the provider's idle time. The providers' pages allow no longer idle
time. So the application may book more than this ledger, but never less.
"""

import math
import time
from dataclasses import dataclass

from app.simulator.chat import ChatRequest, Refusal
from app.simulator.facts import digest_of

#: Seconds without use after which a container is no longer billed, by provider.
IDLE_S = {"openai": 20 * 60, "anthropic": 5 * 60}
_LEAST_S = 5 * 60
_MINUTE_S = 60
_PREFIXES = {"openai": "cntr_", "anthropic": "container_"}


@dataclass(slots=True)
class Container:
    """A container; until `billed_until_s`, earlier requests have paid for the container."""

    id: str
    provider: str
    gigabytes: int
    billed_until_s: float
    expires_s: float


@dataclass(slots=True)
class ContainerUse:
    """The use of a container by one request."""

    container: Container
    started_s: float
    billed: bool

    def seconds(self) -> int:
        """Return the seconds for which the request is billed; keep the container ready."""
        now_s, container = time.monotonic(), self.container
        until_s = now_s + IDLE_S[container.provider]
        since_s = max(self.started_s, container.billed_until_s)
        minutes = math.ceil(max(until_s - since_s, _LEAST_S) / _MINUTE_S)
        container.billed_until_s = container.expires_s = until_s
        return minutes * _MINUTE_S * container.gigabytes if self.billed else 0


class Containers:
    """All containers that programs have used."""

    def __init__(self) -> None:
        self._known: dict[str, Container] = {}

    def use(self, request: ChatRequest, request_id: str, *, runs: bool) -> ContainerUse | None:
        """Return the container of a request, or None if the request needs no container.

        OpenAI makes a container for each request that may run programs, even if no program runs.

        Args:
            request: the request.
            request_id: id of the request; the id of a new container is made from this id.
            runs: whether a program runs.

        Raises:
            Refusal: If the request names a container that is not active.
        """
        now_s = time.monotonic()
        asked = [self._active(id_, request.provider, now_s) for id_ in request.containers]
        offered = any(name == "code_execution" for name, _ in request.server_tools)
        if not offered or not (runs or request.provider == "openai"):
            return None
        container = asked[-1] if asked else self._new(request, request_id, now_s)
        return ContainerUse(container, now_s, billed=not request.free_containers)

    def _new(self, request: ChatRequest, request_id: str, now_s: float) -> Container:
        id_ = f"{_PREFIXES[request.provider]}{digest_of(request_id)}"
        expires_s = now_s + IDLE_S[request.provider]
        container = Container(id_, request.provider, request.gigabytes, now_s, expires_s)
        self._known[id_] = container
        return container

    def _active(self, id_: str, provider: str, now_s: float) -> Container:
        container = self._known.get(id_)
        if container is None or container.provider != provider:
            raise Refusal(400, f"Container with id '{id_}' not found.")
        if provider == "openai" and now_s > container.expires_s:
            raise Refusal(400, "Container is expired.")
        return container
