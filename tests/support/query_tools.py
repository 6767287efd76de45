"""Databases that ``sql_query`` reads in tests."""

import json
import sqlite3
from typing import Any

import psycopg
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from app.configuration.sections import Database
from app.sandbox.processes import Sandbox
from app.tools.builtin.sql import QueryTools


def make_items(url: str) -> None:
    """Make a table of 300 items."""
    values = [(number, f"item {number}") for number in range(300)]
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
            file.execute("CREATE TABLE items (id int, name text)")
            file.executemany("INSERT INTO items VALUES (?, ?)", values)
        file.close()
        return
    with psycopg.connect(plain(url)) as connection:
        connection.execute("CREATE TABLE items (id int, name text)")
        connection.cursor().executemany("INSERT INTO items VALUES (%s, %s)", values)


def plain(url: str) -> str:
    """Return a URL as the library of Postgres reads it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def query_tools(url: str, sandbox: Sandbox, **limits: Any) -> QueryTools:
    """Return the tool for one database, with the name shop."""
    return QueryTools({"shop": Database(url=SecretStr(url), **limits)}, sandbox)


async def read(tools: QueryTools, query: str) -> Any:
    """Return the result of a query as values."""
    return json.loads(await tools.sql_query(query))
