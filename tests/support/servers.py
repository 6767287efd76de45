"""Servers of a single test: a Redis with any options, a Postgres with passwords, and a pooler."""

import asyncio
import contextlib
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psycopg
from redis import Redis
from redis.exceptions import RedisError

from app.embedded.account import server_account
from app.embedded.folders import socket_folder
from app.embedded.postgres import SUPERUSER, find_program, initialise
from app.embedded.redis import find_program as find_redis
from tests.support.pace import scaled
from tests.support.waiting import wait_until

READY_S = scaled(30.0)
LOCAL = "127.0.0.1"
#: A Redis in cluster mode also listens on its port plus this number.
CLUSTER_BUS = 10_000


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind((LOCAL, 0))
        return int(found.getsockname()[1])


def _redis_port() -> int:
    """A free port whose bus, which a server in cluster mode opens, is free, too."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError, OverflowError), closing(socket.socket()) as bus:
            bus.bind((LOCAL, port + CLUSTER_BUS))
            return port


@dataclass(frozen=True, kw_only=True)
class RedisServer:
    """A Redis.

    Attributes:
        port: Its port on 127.0.0.1.
        socket: Its Unix socket.
    """

    port: int
    socket: Path

    @property
    def url(self) -> str:
        return f"redis://{LOCAL}:{self.port}/0"

    def client(self) -> Redis:
        """A client of the default user, whose connections know nothing of AgentChord."""
        return Redis(unix_socket_path=str(self.socket), socket_timeout=5, decode_responses=True)


@contextmanager
def run_redis(folder: Path, *settings: str, mode: tuple[str, ...] = ()) -> Iterator[RedisServer]:
    """Run a Redis that keeps nothing; ``mode`` may be ``("--sentinel",)``."""
    folder.mkdir(exist_ok=True)
    server = RedisServer(port=_redis_port(), socket=folder / "redis.sock")
    file = folder / "redis.conf"
    lines = [
        *(f"port {server.port}", f"bind {LOCAL}", f"unixsocket {server.socket}", f"dir {folder}"),
        *(() if mode else ('save ""',)),
        *settings,
    ]
    file.write_text("\n".join(lines) + "\n")
    command = [str(find_redis().path), str(file), *mode]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def answers() -> bool:
        with contextlib.suppress(RedisError), server.client() as client:
            return bool(client.ping())
        return False

    try:
        wait_until(answers, timeout_s=READY_S, what="Redis answers")
        yield server
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A Postgres that asks for passwords, also on its socket.

    Attributes:
        port: Its port on 127.0.0.1, and the number in the name of its socket.
        folder: The folder of its socket.
    """

    port: int
    folder: Path


@contextmanager
def run_postgres(folder: Path, *, user: str, password: str) -> Iterator[PostgresServer]:
    """Run a Postgres with one more superuser, who needs a password."""
    data = folder / "postgres"
    account = server_account(data)
    program = find_program(data, account)
    folder.mkdir(exist_ok=True)
    initialise(data, program, account)
    rules = (
        f"local all {SUPERUSER} trust",
        "local all all scram-sha-256",
        f"host all all {LOCAL}/32 scram-sha-256",
    )
    (data / "pg_hba.conf").write_text("\n".join(rules) + "\n")
    sockets = socket_folder(folder, "postgres", owner=account.uid)
    server = PostgresServer(port=free_port(), folder=sockets)
    command = [
        *(str(program.path), "-D", str(account.path_to(data)), "-p", str(server.port)),
        *("-c", f"listen_addresses={LOCAL}", "-c", f"unix_socket_directories={sockets}"),
        *("-c", "fsync=off"),
    ]
    with (folder / "postgres.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=data,
            user=account.uid if account.foreign else None,
            group=account.gid if account.foreign else None,
            extra_groups=[] if account.foreign else None,
        )

    def prepared() -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            with psycopg.connect(
                host=str(sockets),
                port=server.port,
                user=SUPERUSER,
                dbname="postgres",
                autocommit=True,
            ) as connection:
                made = psycopg.sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}")
                connection.execute(made.format(psycopg.sql.Identifier(user), password))
                connection.execute("CREATE DATABASE chord")
            return True
        return False

    try:
        wait_until(prepared, timeout_s=READY_S, what="Postgres accepts connections")
        yield server
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(sockets)


class Pooler:
    """Stands before a Postgres as a pooler does, in session mode.

    It changes what poolers change at the start of a session: it drops the settings, or gives the
    client a process id of its own. Everything else passes.

    Args:
        postgres: Path of the socket of Postgres.
        drops_settings: Whether it drops the parameter ``options``.
        own_ids: Whether it gives its clients other process ids.
    """

    def __init__(self, postgres: Path, *, drops_settings: bool, own_ids: bool) -> None:
        self.port = 0
        self._postgres = postgres
        self._drops_settings = drops_settings
        self._own_ids = own_ids
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        made = asyncio.start_server(self._serve, LOCAL, 0)
        self._server = asyncio.run_coroutine_threadsafe(made, self._loop).result(READY_S)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(READY_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(READY_S)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_unix_connection(str(self._postgres))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            there.write(await self._start_of(reader, writer))
            await self._start_of_answer(back, writer)
            await asyncio.gather(_forward(reader, there), _forward(back, writer))
        there.transport.abort()
        writer.transport.abort()

    async def _start_of(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Read the startup message; requests for encryption before it are declined."""
        while True:
            (length,) = struct.unpack("!I", await reader.readexactly(4))
            body = await reader.readexactly(length - 4)
            version, words = body[:4], body[4:].rstrip(b"\0").split(b"\0")
            if int.from_bytes(version[:2]) == 3:
                break
            writer.write(b"N")
        pairs = list(zip(words[::2], words[1::2], strict=True))
        kept = [pair for pair in pairs if not (self._drops_settings and pair[0] == b"options")]
        body = version + b"".join(name + b"\0" + value + b"\0" for name, value in kept) + b"\0"
        return struct.pack("!I", len(body) + 4) + body

    async def _start_of_answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass on the answers until the session is ready, perhaps with another process id."""
        kind = b""
        while kind != b"Z":
            kind = await reader.readexactly(1)
            (length,) = struct.unpack("!I", await reader.readexactly(4))
            body = await reader.readexactly(length - 4)
            if kind == b"K" and self._own_ids:
                body = struct.pack("!I", 4_242_424) + body[4:]
            writer.write(kind + struct.pack("!I", length) + body)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError
