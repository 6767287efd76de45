"""`agentchord limits`: the state of every bucket, and changes of limits at runtime."""

import sys
import time
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Group
from rich.live import Live

from app.cli.cluster import ask
from app.cli.messages import say, tell
from app.cli.output import answer, console
from app.cli.parameters import Wide
from app.cli.tables import number, state, table, words
from app.domain.counts import counted
from app.errors import ServiceUnavailable
from app.rate_limits.overview import overview
from app.rate_limits.stored import read_assignments

WATCH_S = 1.0
STATES = (
    words("bucket", 14),
    number("waiting"),
    number("in flight"),
    number("next free", drop=1),
    number("paused", drop=2),
    number("share of rate", drop=3),
)
LIMITS = (
    words("bucket", 14),
    words("limit", 14),
    number("value"),
    words("from", 14, drop=1),
    number("level", drop=2),
    number("of", drop=4),
    number("per second", drop=3),
    number("learned", drop=5),
)
CIRCUITS = (
    words("circuit", 14),
    state("state"),
    number("next try", drop=1),
    number("failed", drop=2),
    number("succeeded", drop=3),
    number("opened", drop=4),
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the buckets as JSON.")]
Provider = Annotated[
    str, typer.Argument(metavar="PROVIDER", help="openai, anthropic or another provider.")
]
Model = Annotated[
    str,
    typer.Option(help="Name or pattern of models with a bucket of their own, such as 'gpt-4o*'."),
]

group = typer.Typer(rich_markup_mode=None, add_completion=False)


@group.callback(invoke_without_command=True)
def limits(
    context: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show the limits every second, until Ctrl-C.")
    ] = False,
    wide: Wide = False,
    json: AsJson = False,
) -> None:
    """Show the current rate limits, or change them.

    The first table has a line for each bucket: the waiting calls, the calls in flight, and the time
    until the next call may start. The second table has a line for each limit: the value, the
    source, the unused part, and the limit that the provider's headers name. The third table shows
    the circuit breakers of models that have failed lately.
    """
    if context.invoked_subcommand is not None:
        return

    if json and watch:
        raise typer.BadParameter("--watch prints no JSON: leave out --watch or --json")
    if wide and watch:
        raise typer.BadParameter("--watch fits the terminal: leave out --watch or --wide")
    if watch:
        _watch()
    buckets = _buckets()
    answer(buckets, picture(buckets), json=json, wide=wide)


@group.command("set")
def set_(
    provider: Provider,
    values: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE...", help="Limits; `none` means unlimited."),
    ],
    model: Model = "default",
    json: AsJson = False,
) -> None:
    """Set limits while the cluster runs.

    The limits are stored in Postgres and take precedence over the configuration; workers apply them
    at once.
    """
    assigned = read_assignments(values)
    ask(lambda client: client.limits.set(provider, model, assigned))
    _warn_of_a_queue(_show_bucket(f"{provider}/{model}", json=json))


@group.command()
def reset(
    provider: Provider,
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY...]", help="Limits to remove; by default, all stored limits."),
    ] = None,
    model: Model = "default",
    json: AsJson = False,
) -> None:
    """Remove stored limits; the configuration applies again."""
    forgotten = ask(lambda client: client.limits.forget(provider, model, keys or []))
    name = f"{provider}/{model}"
    what = f"forgot {', '.join(forgotten)} of" if forgotten else "nothing was stored for"
    tell(f"{what} {name}", file=sys.stderr)
    _show_bucket(name, json=json)


def _buckets() -> list[dict[str, Any]]:
    stored = ask(lambda client: client.limits.read())
    try:
        live = ask(lambda client: client.live_state.buckets())
        circuits = ask(lambda client: client.live_state.circuits())
    except ServiceUnavailable as error:
        say(f"{error}; calls wait for it")
        live, circuits = [], []
    return overview(stored, live, circuits)


def _show_bucket(name: str, *, json: bool) -> dict[str, Any] | None:
    """Show one bucket and return it; return None if the bucket does not exist any more."""
    found = [bucket for bucket in _buckets() if bucket["bucket"] == name]
    answer(found, picture(found), json=json)
    return found[0] if found else None


def _warn_of_a_queue(bucket: dict[str, Any] | None) -> None:
    """Warn if the calls that already wait for a bucket take more than a minute to start."""
    if bucket is None or bucket["state"] is None:
        return
    waiting = bucket["state"]["waiting"]
    minute = bucket["limits"]["requests_per_minute"]["value"]
    if minute is not None and waiting > minute:
        say(
            f"{counted(waiting, 'request')} wait for {bucket['bucket']}: at {minute:,} a minute "
            f"the last request starts in about {counted(round(waiting / minute), 'minute')}"
        )


def _watch() -> NoReturn:
    printer = console()
    if not sys.stdout.isatty():
        while True:
            printer.print(picture(_buckets()))
            time.sleep(WATCH_S)

    with Live(console=printer, auto_refresh=False) as live:
        while True:
            live.update(picture(_buckets()), refresh=True)
            time.sleep(WATCH_S)


def picture(buckets: list[dict[str, Any]]) -> Group:
    """Return tables of the buckets, of the buckets' limits, and of circuits that count failures."""
    states = table(STATES, [(bucket["bucket"], *_state(bucket["state"])) for bucket in buckets])
    limits = table(
        LIMITS,
        [
            (bucket["bucket"], key, *_limit(key, limit))
            for bucket in buckets
            for key, limit in bucket["limits"].items()
            if _is_worth_a_line(key, limit)
        ],
    )
    breakers = table(
        CIRCUITS,
        [_circuit(circuit) for bucket in buckets for circuit in bucket["circuits"]],
    )
    return Group(states, "", limits, *(("", breakers) if breakers.rows else ()))


def _circuit(circuit: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a circuit breaker: its state, and the counts of its window."""
    closed = circuit["state"] == "closed"
    return (
        f"{circuit['provider']}/{circuit['model']}",
        circuit["state"].replace("_", " "),
        "" if closed else _seconds(circuit["wait_s"]),
        f"{circuit['bad']:,}",
        f"{circuit['ok']:,}",
        counted(circuit["opening"], "time"),
    )


def _state(state: dict[str, Any] | None) -> tuple[str, ...]:
    if state is None:
        return ("idle", "", "", "", "")
    most = f"{state['concurrency']:,}" if state["concurrency"] else "any"
    return (
        f"{state['waiting']:,}",
        f"{state['in_flight']:,} of {most}",
        _seconds(state["next_free_s"]),
        _seconds(state["paused_s"] or None),
        f"{state['ramp']:.0%}",
    )


def _limit(key: str, limit: dict[str, Any]) -> tuple[str, ...]:
    value, live = limit["value"], limit["live"]
    source = f"{limit['source']}, default" if limit["inherited"] else limit["source"]
    shown = value if isinstance(value, str) else "unlimited" if value is None else f"{value:,}"
    if key == "burst" and value is None:
        shown = "automatic"
    if live is None:
        return (shown, source, "", "", "", "")
    learned = live["learned_limit"]
    return (
        shown,
        source,
        f"{live['level']:,.1f}",
        f"{live['capacity']:,.1f}",
        f"{live['rate']:,.3f}",
        "" if learned is None else f"{learned:,.0f}",
    )


def _is_worth_a_line(key: str, limit: dict[str, Any]) -> bool:
    """Return whether to show a limit.

    A limit without a value is shown only if the limit is stored or in use.
    """
    if limit["source"] == "stored" or limit["live"]:
        return True
    return limit["value"] is not None and (key, limit["value"]) != ("enforcement", "bucket")


def _seconds(seconds: float | None) -> str:
    return f"{seconds:,.1f} s" if seconds else "now" if seconds is not None else ""
