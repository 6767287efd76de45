"""The client of a program: the methods are grouped by subject and stay within a scope."""

from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TypeVar
from weakref import WeakValueDictionary

from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import Platform
from app.client.acceptance import Acceptance
from app.client.control import Control
from app.client.costs import Costs
from app.client.history import History
from app.client.limits import Limits
from app.client.live_state import LiveState
from app.client.results import Results
from app.client.runs import Runs
from app.client.transactions import Transactions
from app.client.workflows import Workflows
from app.domain.scope import ALL, Scope
from app.events.texts import Feed
from app.sandbox.processes import Sandbox

Result = TypeVar("Result")


class _Shared:
    """The objects that all clients of one platform share, also clients of different scopes.

    All clients of one scope share one ``Runs`` object, because callers of one scope share
    statements and commits. Callers of different scopes never share statements or commits. A
    ``Runs`` object is kept while a client uses this object.
    """

    def __init__(self, platform: Platform) -> None:
        self.transactions = Transactions(platform)
        self.sandbox = Sandbox()
        self.acceptance = Acceptance(platform.settings, self.sandbox)
        self.feed = Feed(platform.redis)
        self.runs: WeakValueDictionary[Scope, Runs] = WeakValueDictionary()


class Client:
    """A program's access to the cluster; the coroutines run on the event loop of the platform.

    Every client has a scope. Every read and every control stays within this scope. The client
    treats another tenant's run like a run that does not exist.

    A client belongs to one event loop. Code without a loop, or with several loops, uses ``enqueue``
    and ``Run``, which share one client on a background loop (``app.client.process``).

    Args:
        platform: The collaborators.
        scope: The scope of the runs that the client reaches: one tenant, or all.

    Example:
        client = Client(build_platform(application_name="my service"))
        acme = client.within(Scope(tenant="acme"))
        run_id = await acme.runs.enqueue(workflow, {"topic": "tides"})
        state = await acme.runs.wait(run_id, timeout_s=60)
        await client.close()
    """

    def __init__(
        self, platform: Platform, scope: Scope = ALL, *, shared: _Shared | None = None
    ) -> None:
        self._platform = platform
        self._scope = scope
        self._shared = shared or _Shared(platform)

    def within(self, scope: Scope) -> "Client":
        """Return a client of a narrower scope.

        A new client costs little, so a service can make a client for each request. The new client
        shares the connections of this client. If one of the two clients is closed, the connections
        of both clients are closed.

        Raises:
            OutOfScope: If the scope is not inside the scope of this client.
        """
        return Client(self._platform, self._scope.narrowed(scope), shared=self._shared)

    @cached_property
    def runs(self) -> Runs:
        """Methods for runs: enqueue, read, list, wait."""
        shared = self._shared
        found = shared.runs.get(self._scope)
        if found is None:
            found = Runs(self._platform, self._scope, shared.transactions, shared.acceptance)
            shared.runs[self._scope] = found
        return found

    @cached_property
    def workflows(self) -> Workflows:
        """Methods for workflows: register, read."""
        shared = self._shared
        return Workflows(self._scope, shared.transactions, shared.acceptance, self.runs)

    @cached_property
    def control(self) -> Control:
        """Methods that control runs: cancel, pause, resume, retry, rerun, prune."""
        return Control(self._platform, self._scope, self._shared.transactions, self.runs)

    @cached_property
    def history(self) -> History:
        """Methods for histories of runs, live texts, and the stream of all events."""
        shared = self._shared
        return History(self._platform, self._scope, shared.transactions, self.runs, shared.feed)

    @cached_property
    def results(self) -> Results:
        """Methods for outcomes of runs: outputs, results, context."""
        return Results(self.runs, self.workflows, self._shared.transactions)

    @cached_property
    def costs(self) -> Costs:
        """Methods for reports of costs."""
        return Costs(self._scope, self._shared.transactions, self.runs)

    @cached_property
    def limits(self) -> Limits:
        """Methods for rate limits: read, set, forget; the scope must be ``ALL``."""
        self._scope.check_all("limits apply to the whole installation")
        return Limits(self._platform, self._shared.transactions)

    @cached_property
    def live_state(self) -> LiveState:
        """The current buckets, circuits and queues; the scope must be ``ALL``."""
        self._scope.check_all("the live state covers the whole installation")
        return LiveState(self._platform, self._shared.transactions.run)

    async def transaction(self, step: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run one transaction and raise the errors of this package; the scope must be ``ALL``."""
        self._scope.check_all("a transaction of the caller's own reaches the rows of all tenants")
        return await self._shared.transactions.run(step)

    async def close(self) -> None:
        """Close all connections."""
        self._shared.sandbox.close()
        await self._shared.feed.close()
        await self._platform.close()
