"""What a program does with the cluster, by subject, within a scope."""

from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TypeVar
from weakref import WeakValueDictionary

from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import Platform
from app.client.acceptance import Acceptance
from app.client.control import Control
from app.client.history import History
from app.client.limits import Limits
from app.client.live_state import LiveState
from app.client.results import Results
from app.client.runs import Runs
from app.client.transactions import Transactions
from app.client.workflows import Workflows
from app.domain.scope import ALL, Scope
from app.events.texts import Feed

Result = TypeVar("Result")


class _Shared:
    """What all clients of one platform share, whatever their scopes.

    The runs of a scope are shared by all its clients, because callers of one scope share
    statements and commits; those of two scopes never do. They are kept while they are in use.
    """

    def __init__(self, platform: Platform) -> None:
        self.transactions = Transactions(platform)
        self.acceptance = Acceptance(platform.settings)
        self.feed = Feed(platform.redis)
        self.runs: WeakValueDictionary[Scope, Runs] = WeakValueDictionary()


class Client:
    """What a program does with the cluster; its coroutines run on the loop of its platform.

    Every read and every control stays within the scope that the client was made with: another
    tenant's run is as unknown as one that does not exist.

    A client belongs to one event loop. Code without a loop, or on several, uses ``enqueue`` and
    ``Run``, which have one client on a background loop (``app.client.process``).

    Args:
        platform: The collaborators.
        scope: Whose runs it reaches.

    Example:
        client = Client(build_platform(application_name="my service"))
        acme = client.within(Scope(tenant="acme"))
        run_id = await acme.runs.enqueue(workflow, {"topic": "tides"})
        run = await acme.runs.wait(run_id, timeout_s=60)
        await client.close()
    """

    def __init__(
        self, platform: Platform, scope: Scope = ALL, *, shared: _Shared | None = None
    ) -> None:
        self._platform = platform
        self._scope = scope
        self._shared = shared or _Shared(platform)

    def within(self, scope: Scope) -> "Client":
        """Return a client of a narrower scope; cheap, so a service makes one for each request.

        It shares the connections of this one, which ``close`` of either closes.

        Raises:
            OutOfScope: If the scope is not inside this client's.
        """
        return Client(self._platform, self._scope.narrowed(scope), shared=self._shared)

    @cached_property
    def runs(self) -> Runs:
        """Runs: enqueue, read, list, wait."""
        shared = self._shared
        found = shared.runs.get(self._scope)
        if found is None:
            found = Runs(self._platform, self._scope, shared.transactions, shared.acceptance)
            shared.runs[self._scope] = found
        return found

    @cached_property
    def workflows(self) -> Workflows:
        """Workflows: register, read."""
        shared = self._shared
        return Workflows(self._scope, shared.transactions, shared.acceptance, self.runs)

    @cached_property
    def control(self) -> Control:
        """Control of runs: cancel, pause, resume, retry, rerun, prune."""
        return Control(self._platform, self._scope, self._shared.transactions, self.runs)

    @cached_property
    def history(self) -> History:
        """Histories of runs, live texts, the stream of all events."""
        shared = self._shared
        return History(self._platform, self._scope, shared.transactions, self.runs, shared.feed)

    @cached_property
    def results(self) -> Results:
        """Outcomes of runs: outputs, results, context."""
        return Results(self.runs, self.workflows)

    @cached_property
    def limits(self) -> Limits:
        """Rate limits: read, set, forget; of scope ``ALL`` only."""
        self._scope.check_all("limits are those of the whole installation")
        return Limits(self._platform, self._shared.transactions)

    @cached_property
    def live_state(self) -> LiveState:
        """Buckets, circuits and queues at this moment; of scope ``ALL`` only."""
        self._scope.check_all("the live state is that of the whole installation")
        return LiveState(self._platform, self._shared.transactions.run)

    async def transaction(self, step: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run one transaction, with the errors of this package; of scope ``ALL`` only."""
        self._scope.check_all("a transaction of the caller's own reaches the rows of all tenants")
        return await self._shared.transactions.run(step)

    async def close(self) -> None:
        """Close all connections."""
        await self._shared.feed.close()
        await self._platform.close()
