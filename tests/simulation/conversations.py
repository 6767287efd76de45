"""The rules of conversations with tools: each conversation goes on, and no tool call runs twice."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.simulation.provider import Provider
from tests.simulation.tools import MAY_BE_REPEATED

TOOL_CALLS = "SELECT CAST(arguments AS jsonb)->>'key' AS key, state, finished_at FROM tool_calls"
TURNS = "SELECT agent_run_id, attempt, number FROM turns WHERE NOT set_aside"
ENDED = ("completed", "failed")


def broken_conversations(
    inspector: psycopg.Connection[Any],
    provider: Provider,
    executed: Sequence[tuple[str, float]],
) -> list[str]:
    """Find the errors in the conversations of a simulation that has come to rest.

    Args:
        inspector: Sees the committed rows.
        provider: Knows the requests that have reached the provider.
        executed: Keys of the executed tool calls, each with its time in seconds since the epoch.
    """
    with inspector.cursor(row_factory=dict_row) as cursor:
        stored = {row["key"]: row for row in cursor.execute(TOOL_CALLS).fetchall()}
        turns = cursor.execute(TURNS).fetchall()
    found = []
    for key, times in Counter(key for key, _ in executed).items():
        if key not in stored:
            found.append(f"{key} was executed before its start was stored")
        if times > 1 and key.split()[1] not in MAY_BE_REPEATED:
            found.append(f"{key} was executed {times} times")
    for key, at_s in executed:
        row = stored.get(key)
        at = datetime.fromtimestamp(at_s, UTC)
        if row and row["state"] in ENDED and at > row["finished_at"]:
            found.append(f"{key} was executed again after its end was stored")
    found += [
        f"{key} was never said to have ended"
        for key, row in stored.items()
        if row["state"] == "running"
    ]
    return found + _forgotten(turns, provider)


def _forgotten(turns: Sequence[dict[str, Any]], provider: Provider) -> list[str]:
    """Find attempts that do not go on from a turn that an earlier attempt has stored."""
    last: dict[Any, list[tuple[int, int]]] = {}
    for turn in turns:
        last.setdefault(turn["agent_run_id"], []).append((turn["attempt"], turn["number"]))
    return [
        f"attempt {served.hold.attempt} of {served.agent} has forgotten turn {number}"
        for served in provider.served.values()
        for attempt, number in last.get(served.hold.agent_run_id, ())
        if served.hold.attempt > attempt and served.turns <= number
    ]
