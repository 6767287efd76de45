"""Every bucket in the form for people: the limits in force, their sources, and the state."""

from collections.abc import Iterable, Mapping
from typing import Any

from app.rate_limits.stored import LimitTable

#: Tier name -> key in the configuration, for the tiers whose name and key differ.
KEY_OF_TIER = {
    "requests": "requests_per_minute",
    "tokens": "tokens_per_minute",
    "input_tokens": "input_tokens_per_minute",
    "output_tokens": "output_tokens_per_minute",
}
STATE = ("waiting", "concurrency", "in_flight", "paused_s", "next_free_s", "ramp")
TIER = ("limit", "level", "capacity", "rate", "learned_limit")
#: The source of a limit if its bucket is in use although no block defines the bucket any more.
FORMER = "former"


def overview(
    table: LimitTable,
    live: Iterable[Mapping[str, Any]],
    circuits: Iterable[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Return the configured and the live buckets.

    Args:
        table: The limits in force.
        live: Buckets in use, in the form of ``ClusterLimiter.snapshot``.
        circuits: Circuit breakers with recent failures, each with ``provider`` and ``model``.

    Returns:
        One dict per bucket with these keys:

        - ``bucket``: the name of the bucket,
        - ``state``: None if the bucket is not in use; otherwise a dict with ``waiting``,
          ``concurrency``, ``in_flight``, ``paused_s``, ``next_free_s`` and ``ramp``,
        - ``limits``: by key, a dict with ``value`` (None means unlimited), ``source``,
          ``inherited`` and ``live``; ``live`` is None or a dict with ``limit``, ``level``,
          ``capacity``, ``rate`` per second and ``learned_limit``,
        - ``circuits``: the circuit breakers of the bucket's models.

        If a bucket is in use but no block defines the bucket any more, its limits have the source
        ``former``. If a bucket without a block has no limits and is not paused, the bucket is left
        out. Most buckets for the counts of prompts are left out for this reason.
    """
    in_use = {bucket["bucket"]: bucket for bucket in live if _says_something(bucket, table)}
    names = dict.fromkeys((*table.values, *in_use))
    of_bucket: dict[str, list[dict[str, Any]]] = {}
    for circuit in circuits:
        bucket, _ = table.resolve(circuit["provider"], circuit["model"])
        of_bucket.setdefault(bucket, []).append(dict(circuit))
    return [
        _bucket(name, table.values.get(name), in_use.get(name))
        | {"circuits": of_bucket.get(name, [])}
        for name in dict.fromkeys((*names, *of_bucket))
    ]


def _says_something(live: Mapping[str, Any], table: LimitTable) -> bool:
    state = (live.get(part) for part in ("tiers", "concurrency", "waiting", "paused_s"))
    return live["bucket"] in table.values or any(state)


def _bucket(
    name: str, values: Mapping[str, Any] | None, live: Mapping[str, Any] | None
) -> dict[str, Any]:
    tiers = {
        KEY_OF_TIER.get(tier["tier"], tier["tier"]): tier for tier in (live or {}).get("tiers", ())
    }
    if values is None:
        limits = {
            key: {"value": tier["limit"], "source": FORMER, "inherited": False}
            for key, tier in tiers.items()
        }
    else:
        limits = {
            key: {"value": value.value, "source": value.source, "inherited": value.inherited}
            for key, value in values.items()
        }
    for key, limit in limits.items():
        tier = tiers.get(key)
        limit["live"] = None if tier is None else {part: tier.get(part) for part in TIER}
    state = None if live is None else {part: live.get(part) for part in STATE}
    return {"bucket": name, "state": state, "limits": limits}
