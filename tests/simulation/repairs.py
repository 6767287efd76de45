"""The rules of repairs: a retry pays for nothing twice, and leaves no result of an old input."""

from collections import defaultdict
from itertools import pairwise
from typing import Any

import psycopg

from tests.simulation.provider import ANSWER, Provider, Served

#: Every output that was accepted at any time.
EVER_ACCEPTED = "SELECT DISTINCT output FROM simulation.steps WHERE status = 'completed'"
#: The agent runs with their accepted attempts in order, and whether all around them has completed.
ATTEMPTS = """
    SELECT a.id, a.name, t.number, a.output, whole.status = 'completed' AS is_whole,
        t.outcome = 'completed' AS is_last
    FROM attempts t JOIN agent_runs a ON a.id = t.agent_run_id JOIN runs r ON r.id = a.run_id
    JOIN runs whole ON whole.id = coalesce(r.ancestors[1], r.id)
    WHERE t.outcome IN ('completed', 'replaced') ORDER BY a.id, t.number
"""


def broken_repairs(inspector: psycopg.Connection[Any], provider: Provider) -> list[str]:
    """Find the errors in what retries have paid for, in a simulation that has come to rest."""
    ever = {row[0] for row in inspector.execute(EVER_ACCEPTED) if isinstance(row[0], str)}
    found = [
        f"{served.agent} has read {strange}, which was not accepted"
        for served in provider.served.values()
        if (strange := set(ANSWER.findall(served.prompt)) - ever)
    ]
    rows = inspector.execute(ATTEMPTS).fetchall()
    current = {output for _, _, _, output, _, _ in rows if isinstance(output, str)}
    served_by: dict[tuple[Any, int], Served] = {
        (served.hold.agent_run_id, served.hold.attempt): served
        for served in provider.served.values()
    }
    paid: dict[tuple[Any, str], list[Served]] = defaultdict(list)
    whole = set()
    for id_, name, number, _, is_whole, is_last in rows:
        if (served := served_by.get((id_, number))) is not None:
            paid[id_, name].append(served)
            if is_whole and is_last:
                whole.add((id_, name))
    for key, calls in paid.items():
        if any(one.prompt == other.prompt for one, other in pairwise(calls)):
            found.append(f"{key[1]} was paid again although its input was the same")
        old = set(ANSWER.findall(calls[-1].prompt)) - current
        if key in whole and old:
            found.append(f"the result of {key[1]} comes from {old}, which was replaced")
    return found
