"""Postgres as simulated processes see it: real sessions and real SQL, in virtual time.

The loop stands still while a statement runs, so that only the seed decides the order of the steps.
If a statement gets no answer, the simulation asks Postgres whether another transaction's lock
blocks the statement. If so, the statement's process waits in virtual time, and the simulation asks
Postgres again when a transaction ends.

A little virtual time passes before a statement reaches Postgres, and again before its answer
arrives. At both moments the statement's process can die or freeze, and its connection can break.
Then no process knows that the statement has run.
"""

import asyncio
import os
import random
import select
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors, generators, pq, waiting
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.domain.json_text import read_json
from app.embedded.postgres import SUPERUSER
from app.storage.session import DRIVER, MAX_CONNECTIONS, dumps
from tests.simulation.connections import Connections
from tests.simulation.loop import CURRENT, EPOCH_S, Process, VirtualLoop

SCRIPT = Path(__file__).with_name("clock.sql")
#: Real milliseconds after which Postgres is asked what blocks a statement without an answer.
PATIENCE_MS = 2
#: Places of the processes that can exist at the same time.
SLOTS = ("w1", "w2", "w3", "client0", "client1", "client2", "client3")
IDLE_IN_TRANSACTION_S = 15.0
TABLES = b"SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
BLOCKERS = "SELECT pg_blocking_pids(%s)"

#: Gets the name of a boundary and the process that is there, which it may break, freeze or kill.
Boundary = Callable[[str, Process], None]


@dataclass(eq=False)
class _Waiting:
    """A statement that waits for a lock."""

    steps: Generator[Any, Any, Any]
    state: Any
    future: asyncio.Future[Any]


class Session(psycopg.AsyncConnection[Any]):
    """A connection of a simulated process."""

    server: "Database"
    process: Process
    lost = False
    transactions = 0

    async def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        """Run the whole statement; here the real psycopg would wait for the socket."""
        return await self.server.execute(self, gen)

    async def close(self) -> None:
        """Give back the real connection."""
        self.server.release(self)

    def _start_query(self) -> Generator[Any, Any, None]:
        if self.autocommit or self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            return
        began = self.server.clock_text()
        self.pgconn.send_query(b"BEGIN; SET LOCAL simulation.began = '%s'" % began)
        for result in (yield from generators.execute(self.pgconn)):
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise errors.error_from_result(result)


class Database:
    """The server, with one database, which one simulation after another uses.

    Args:
        url: A migrated database of the embedded server; nothing else uses the database.
    """

    def __init__(self, url: str) -> None:
        # The clock reads a file, and emptying the tables leaves out their triggers.
        superuser = make_url(url).set(username=SUPERUSER)
        # The user of Postgres can read the folder of the sockets, and perhaps no other folder.
        clock = Path(str(superuser.query["host"])) / f"clock_{superuser.database}"
        self._connections = Connections(superuser.render_as_string(hide_password=False))
        self._clock = os.open(clock, os.O_CREAT | os.O_WRONLY, 0o644)
        self._engines: dict[str, AsyncEngine] = {}
        self._sessions: list[Session] = []
        self._waiting: dict[Session, _Waiting] = {}
        self.away = False
        self.statements = 0
        self.lock_waits = 0
        self.deadlocks = 0
        self.set_clock(EPOCH_S)
        self.inspector = self._connections.inspector()
        script = SCRIPT.read_text().split("\n", 3)[3]
        literal = "'" + str(clock).replace("'", "''") + "'"
        self.inspector.execute((script % {"clock": literal}).encode())
        name = self.inspector.info.dbname
        self.inspector.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off'.encode())
        # New statistics lead to new plans, and new plans to another order of rows, at any moment.
        for table in self.inspector.execute(TABLES).fetchall():
            self.inspector.execute(
                f'ALTER TABLE "{table[0]}" SET (autovacuum_enabled = off)'.encode()
            )
        self._begun = False
        asyncio.run(self._make_engines())

    def begin(
        self,
        loop: VirtualLoop,
        generator: random.Random,
        *,
        boundary: Boundary,
        ended: Callable[[], None],
    ) -> None:
        """Start a simulation on empty tables.

        Args:
            loop: The loop of the simulation.
            generator: Draws the durations of statements.
            boundary: This is called before every statement is sent, and when the answer comes.
            ended: This is called after every transaction.
        """
        self._begun = True
        self._loop, self._generator = loop, generator
        self._boundary, self._ended = boundary, ended
        self.away = False
        self.statements = 0
        self.lock_waits = 0
        self.deadlocks = 0
        self.inspector.execute("SELECT simulation.empty()")

    def end(self) -> None:
        """Take back every connection."""
        for session in list(self._sessions):
            self._break(session)
        for engine in self._engines.values():
            engine.sync_engine.dispose(close=False)

    def close(self) -> None:
        """Close everything for good."""
        self._connections.close()
        self.inspector.close()
        os.close(self._clock)

    def set_clock(self, wall_clock_s: float) -> None:
        """Set the database's clock to a time."""
        self._now = datetime.fromtimestamp(wall_clock_s, UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
        os.pwrite(self._clock, self._now.encode(), 0)

    def clock_text(self) -> bytes:
        """Return the time in the form in which SQL reads it."""
        return self._now.encode()

    def engine(self, slot: str) -> AsyncEngine:
        """Return the engine of a slot, without connections but with its compiled statements."""
        engine = self._engines[slot]
        engine.sync_engine.dispose(close=False)
        return engine

    async def _make_engines(self) -> None:
        """Make an engine for each slot, and connect it once: a first connection sends more SQL."""
        CURRENT.set(Process("before"))
        for slot in SLOTS:
            engine = self._engines[slot] = create_async_engine(
                DRIVER,
                async_creator=self._connect,
                pool_size=MAX_CONNECTIONS,
                max_overflow=0,
                pool_timeout=60,
                hide_parameters=True,
                json_serializer=dumps,
                json_deserializer=read_json,
            )
            async with engine.connect():
                pass
            await engine.dispose()

    # ---- faults --------------------------------------------------------------------------------

    def drop_process(self, process: Process) -> None:
        """Break the connections of a process that is gone."""
        for session in [s for s in self._sessions if s.process is process]:
            self._break(session)

    def freeze(self, process: Process) -> None:
        """Let a frozen process keep its locks until the server ends the process's transactions."""
        for session in self._sessions:
            if session.process is process and self._in_transaction(session):
                self._loop.at(
                    IDLE_IN_TRANSACTION_S,
                    lambda s=session, n=session.transactions: self._lose_patience(s, n),  # type: ignore[misc]
                )

    def terminate(self, sessions: int | None = None) -> None:
        """Terminate the backends of some connections; without a number, of all, like a restart."""
        victims = list(self._sessions)
        if sessions is not None:
            victims = self._generator.sample(victims, min(sessions, len(victims)))
        for session in victims:
            self._break(session)

    # ---- the way of a statement ----------------------------------------------------------------

    async def execute(self, session: Session, steps: Generator[Any, Any, Any]) -> Any:
        """Run psycopg's steps on a connection, with every fault that may happen meanwhile."""
        process = session.process
        try:
            await self._travel(process, "sql_before")
            self._check(session)
        except BaseException:
            steps.close()
            raise
        was_open = self._in_transaction(session)
        ended = False
        try:
            answer = await self._run(session, steps)
        finally:
            ended = was_open and not self._in_transaction(session)
            if ended:
                session.transactions += 1
                self._look_again()
                if self._begun:
                    self._ended()
        await self._travel(process, "sql_ended" if ended else "sql_after")
        self._check(session)
        return answer

    async def _travel(self, process: Process, boundary: str) -> None:
        """Let the time of the wire pass; when the answer comes, the process may be dead."""
        if not process.alive:
            raise errors.OperationalError("its process is dead")
        if not self._begun:
            return  # before the first simulation there is no virtual time
        draw = self._generator.random()
        if draw < 0.5:
            await asyncio.sleep(self._generator.expovariate(1 / 0.0005))
        elif draw < 0.52:
            await asyncio.sleep(self._generator.uniform(0.01, 0.3))
        self._boundary(boundary, process)
        if not process.alive or process.frozen:
            await asyncio.sleep(0)  # for a dead process, this never ends

    def _check(self, session: Session) -> None:
        if session.lost:
            raise errors.OperationalError("server closed the connection unexpectedly")

    async def _run(self, session: Session, steps: Generator[Any, Any, Any]) -> Any:
        self.statements += 1
        done, value = self._drive(session, steps, None)
        if done:
            return value
        self.lock_waits += 1
        future = self._loop.create_future()
        self._waiting[session] = _Waiting(steps, value, future)
        if self._is_in_a_circle(session):
            self.deadlocks += 1
            self._break(session)
        try:
            return await future
        except asyncio.CancelledError:
            if session in self._waiting:  # psycopg makes the server cancel the statement
                self._break(session)
            raise

    def _drive(
        self, session: Session, steps: Generator[Any, Any, Any], state: Any
    ) -> tuple[bool, Any]:
        """Go on with a statement until it is done, or until a lock certainly blocks it.

        Returns:
            True and the value of the statement, or False and the state of the statement.
        """
        try:
            if state is None:
                state = next(steps)
            poll = select.poll()
            fd = session.pgconn.socket
            while True:
                wanted = select.POLLIN if state & waiting.WAIT_R else 0
                wanted |= select.POLLOUT if state & waiting.WAIT_W else 0
                poll.register(fd, wanted)
                found = poll.poll(PATIENCE_MS)
                if not found:
                    if self._blockers(session):
                        return False, state
                    continue
                mask = found[0][1]
                readable = waiting.READY_R if mask & ~select.POLLOUT else waiting.READY_NONE
                writable = waiting.READY_W if mask & select.POLLOUT else waiting.READY_NONE
                state = steps.send(readable | writable)
        except StopIteration as done:
            return True, done.value

    def _blockers(self, session: Session) -> list[int]:
        row = self.inspector.execute(BLOCKERS, [session.pgconn.backend_pid]).fetchone()
        assert row is not None
        blockers: list[int] = row[0]
        return blockers

    def _is_in_a_circle(self, session: Session) -> bool:
        """Return whether the session waits for itself: locks were not taken in one order."""
        waits = {s.pgconn.backend_pid: self._blockers(s) for s in self._waiting}
        own = session.pgconn.backend_pid
        seen, front = {own}, list(waits[own])
        while front:
            pid = front.pop()
            if pid == own:
                return True
            if pid not in seen:
                seen.add(pid)
                front += waits.get(pid, ())
        return False

    def _look_again(self) -> None:
        """Go on, in the order of arrival, with the statements that waited for a transaction."""
        moved = True
        while moved:
            moved = False
            for session, statement in list(self._waiting.items()):
                if session not in self._waiting:
                    continue
                was_open = self._in_transaction(session)
                try:
                    done, value = self._drive(session, statement.steps, statement.state)
                except Exception as error:  # noqa: BLE001  the statement's error
                    done, value = True, error
                if not done:
                    continue
                del self._waiting[session]
                moved = moved or (was_open and not self._in_transaction(session))
                if statement.future.done():
                    continue
                if isinstance(value, Exception):
                    statement.future.set_exception(value)
                else:
                    statement.future.set_result(value)

    # ---- connections ---------------------------------------------------------------------------

    async def _connect(self, *args: Any, **options: Any) -> Session:
        process = CURRENT.get()
        assert process is not None, "only processes connect"
        await self._travel(process, "connect")
        if self.away:
            raise errors.OperationalError("connection refused: the server is starting up")
        pgconn, prepared = self._connections.take()
        session = Session(pgconn)
        session._prepared = prepared
        session.server, session.process = self, process
        self._sessions.append(session)
        return session

    def release(self, session: Session) -> None:
        """Take back the real connection of a session that is over, with its prepared statements."""
        if session not in self._sessions:
            return
        self._sessions.remove(session)
        session._closed = not session.lost
        pgconn, session.pgconn = session.pgconn, self._connections.closed
        if pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            self.inspector.execute("SELECT pg_terminate_backend(%s, 5000)", [pgconn.backend_pid])
            pgconn.finish()
        self._connections.give_back(pgconn, session._prepared)
        self._look_again()

    def _break(self, session: Session) -> None:
        session.lost = True
        statement = self._waiting.pop(session, None)
        if statement is not None:
            statement.steps.close()
            if not statement.future.done():
                statement.future.set_exception(
                    errors.OperationalError("server closed the connection unexpectedly")
                )
        self.release(session)

    def _lose_patience(self, session: Session, transaction: int) -> None:
        if session.process.frozen and session.transactions == transaction:
            self._break(session)

    def _in_transaction(self, session: Session) -> bool:
        idle = (pq.TransactionStatus.IDLE, pq.TransactionStatus.UNKNOWN)
        return session.pgconn.transaction_status not in idle
