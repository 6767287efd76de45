"""A run as one self-contained HTML page, which needs no network access and no scripts.

Markupsafe escapes every text. The page's content security policy allows no scripts.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from app.domain.counts import counted
from app.domain.json_text import write_json
from app.domain.money import aligned_dollars, dollars
from app.domain.plain_text import json_shown, shown
from app.monitoring.explain import Live, explain_waits
from app.monitoring.explain_answers import explain_answers
from app.monitoring.explain_cost import explain_money, explain_time
from app.monitoring.explain_outcomes import explain_outcomes
from app.monitoring.findings import Finding, Reason, condensed
from app.monitoring.progress import RunProgress
from app.monitoring.report_graph import graph, state_of
from app.monitoring.run_facts import Attempt, Call, superseded
from app.monitoring.run_history import RunHistory
from app.monitoring.timeline import AgentTimeline, Phase, Timeline, timeline_of
from app.monitoring.whole_run import grouped_incomplete, without_indices
from app.monitoring.wording import seconds_of

#: If a table has more rows than this, the further rows are hidden, except for important rows.
MOST_ROWS = 40
MOST_LINES = 20
MOST_OF_A_REASON = 4
TICKS = 4
#: A wait that takes a smaller share of the run's time is not drawn.
VISIBLE_SHARE = 0.004
PHASES = {
    Phase.CALLING: "calling or working",
    Phase.HELD: "waiting for a limit, money or a circuit",
    Phase.QUEUED: "waiting to be claimed",
    Phase.LOST: "lost with a worker",
    Phase.AWAY: "between attempts",
}

Redact = Callable[[str], str]
EMPTY = Markup("")


def report_page(
    history: RunHistory, outputs: Mapping[str, Any] | None = None, *, redact: Redact = str
) -> str:
    """Build the page.

    Args:
        history: The run.
        outputs: The agents' outputs to show; by default no output is shown.
        redact: A function that removes secrets from errors.
    """
    timeline = timeline_of(history)
    critical = {step.name for step in timeline.critical_path}
    run = history.run
    page = Markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        "<title>{title}</title><style>{style}</style></head><body><main>{body}"
        "<footer>As of {now:%Y-%m-%d %H:%M:%S} UTC. Dollars and calls are those of the ledger."
        "</footer></main></body></html>\n"
    ).format(
        title=f"{run.workflow}: {run.status}",
        style=Markup(files("app.monitoring").joinpath("report.css").read_text("utf-8")),  # noqa: S704  ours
        now=history.now,
        body=EMPTY.join(
            (
                _header(history, timeline),
                _section("Why", _reasons(history, timeline, redact)),
                _section("Graph", _scrolling(graph(history, critical))),
                _section("Timeline", _gantt(timeline, critical), long=True),
                _section("Costs", _costs(history.calls)),
                _section("Failures", _failures(history, redact)),
                _section("Retries", _retries(history, redact)),
                _section("Outputs", _outputs(outputs), long=True),
            )
        ),
    )
    return shown(page)


def _header(history: RunHistory, timeline: Timeline) -> Markup:
    run = history.run
    calls = [call for call in history.calls if call.kind != "correction"]
    waiting = sum(each.waiting_s for each in timeline.agents)
    calling = sum(each.calling_s for each in timeline.agents)
    share = waiting / (waiting + calling) if waiting + calling else 0.0
    spent_usd = sum((call.cost_usd for call in history.calls), Decimal(0))
    spent = float(spent_usd / run.limit_usd) if run.limit_usd else 0.0
    repeated = len(_repeated(history))
    figures = (
        _figure(seconds_of(timeline.seconds), "from start to end" if run.finished_at else "so far"),
        _figure_of_agents(run),
        _figure(_money(spent_usd), f"of a budget of {dollars(run.limit_usd)}", spent),
        _figure(
            f"{len(calls):,}",
            f"{'call' if len(calls) == 1 else 'calls'}, "
            f"{sum(c.outcome != 'ok' for c in calls)} failed",
        ),
        _figure(f"{share:.0%}", "of the agents' time was waiting", share),
        _figure(
            str(repeated), "attempt was repeated" if repeated == 1 else "attempts were repeated"
        ),
    )
    facts = [f"run {run.id}", f"version {run.version}"]
    facts += [f"started {run.started_at:%Y-%m-%d %H:%M:%S} UTC"] if run.started_at else []
    facts += [f"key {run.key}"] if run.key else []
    facts += [f"{key}={value}" for key, value in sorted(run.labels.items())]
    return Markup(
        '<div class="title"><h1>{name}</h1><span class="pill s-{state}">{status}</span></div>'
        '<p class="sub">{facts}</p><div class="figures">{figures}</div>'
    ).format(
        name=run.workflow,
        state=run.status,
        status=run.status.replace("_", " "),
        facts=" · ".join(facts),
        figures=EMPTY.join(figures),
    )


def _figure_of_agents(run: RunProgress) -> Markup:
    done = sum(agent.status.is_final for agent in run.agents)
    failed = sum(agent.status.is_failure for agent in run.agents)
    parts = ("agents ended", f"{failed} failed" if failed else "", run.shortfall)
    text = ", ".join(filter(None, parts))
    return _figure(f"{done} of {len(run.agents)}", text, done / max(len(run.agents), 1))


def _figure(value: str, text: str, share: float | None = None) -> Markup:
    return Markup('<div class="figure"><b>{}</b><span>{}</span>{}</div>').format(
        value, text, EMPTY if share is None else _meter(share)
    )


def _meter(share: float) -> Markup:
    width = min(max(share, 0.0), 1.0) * 100
    return Markup('<div class="meter"><i style="width:{:.1f}%"></i></div>').format(width)


def _section(title: str, body: Markup, *, long: bool = False) -> Markup:
    if not body:
        return EMPTY
    return Markup("<section{}><h2>{}</h2>{}</section>").format(
        Markup(' class="long"') if long else "", title, body
    )


def _scrolling(body: Markup) -> Markup:
    return Markup('<div class="scroll">{}</div>').format(body)


def _reasons(history: RunHistory, timeline: Timeline, redact: Redact) -> Markup:
    found: list[Finding] = [
        *explain_waits(history, Live()),
        *(
            each
            for each in explain_outcomes(history)
            if not each.agents or each.reason is Reason.PARTIAL
        ),
        *explain_answers(history),
        *explain_time(history, timeline),
        *explain_money(history),
    ]
    if not found:
        return EMPTY
    items = (
        Markup("<li><b>{}</b> {}{}</li>").format(
            each.subject if each.agents else "The run",
            redact(each.predicate),
            Markup('<span class="remedy">{}</span>').format(each.remedy) if each.remedy else EMPTY,
        )
        for each in condensed(found, MOST_OF_A_REASON)
    )
    return Markup('<ul class="reasons">{}</ul>').format(EMPTY.join(items))


def _gantt(timeline: Timeline, critical: set[str]) -> Markup:
    rows = [each for each in timeline.agents if each.spans]
    if not rows or timeline.seconds <= 0:
        return EMPTY
    important = critical | {each.agent.name for each in rows if each.agent.status.is_failure}
    if len(rows) > MOST_ROWS:
        slowest = sorted(rows, key=lambda each: -(each.waiting_s + each.calling_s))
        important |= {each.agent.name for each in slowest[: MOST_ROWS // 2]}
        shown = [each for each in rows if each.agent.name in important][: 2 * MOST_ROWS]
        known = {each.agent.name for each in shown}
        hidden = [each for each in rows if each.agent.name not in known]
    else:
        shown, hidden = rows, []
    legend = (
        Markup('<span><i class="{}"></i>{}</span>').format(phase, text)
        for phase, text in PHASES.items()
    )
    marked = Markup('<span><b style="color:var(--accent)">◆</b> critical path</span>')
    folded = (
        Markup("<details><summary>{} more agents</summary>{}</details>").format(
            len(hidden), EMPTY.join(_row(each, timeline, critical) for each in hidden)
        )
        if hidden
        else EMPTY
    )
    return Markup('<div class="legend">{}{}</div>{}{}{}').format(
        EMPTY.join(legend),
        marked,
        _axis(timeline),
        EMPTY.join(_row(each, timeline, critical) for each in shown),
        folded,
    )


def _axis(timeline: Timeline) -> Markup:
    marks = (
        Markup('<span style="left:{:.0f}%">{}</span>').format(
            100 * tick / TICKS, seconds_of(timeline.seconds * tick / TICKS)
        )
        for tick in range(TICKS + 1)
    )
    return Markup(
        '<div class="row axis"><div></div><div class="track">{}</div><div></div></div>'
    ).format(EMPTY.join(marks))


def _row(each: AgentTimeline, timeline: Timeline, critical: set[str]) -> Markup:
    whole = timeline.seconds

    def bar(kind: str, start: float, length: float, title: str) -> Markup:
        return Markup('<i class="{}" style="left:{:.2f}%;width:{:.2f}%" title="{}"></i>').format(
            kind, 100 * start / whole, 100 * length / whole, title
        )

    bars = [
        bar(
            span.phase,
            max((span.start - timeline.start).total_seconds(), 0.0),
            span.seconds,
            f"{PHASES[span.phase]}, {seconds_of(span.seconds)}",
        )
        for span in each.spans
        if span.phase is Phase.CALLING or span.seconds > whole * VISIBLE_SHARE
    ]
    bars += [
        bar(
            "pausing",
            max((start - timeline.start).total_seconds(), 0.0),
            (end - start).total_seconds(),
            "the run was paused",
        )
        for start, end in timeline.pauses
    ]
    is_critical = each.agent.name in critical
    return Markup(
        '<div class="row{}"><div class="who" title="{}">{}{}</div><div class="track">{}</div>'
        '<div class="len">{}</div></div>'
    ).format(
        " crit" if is_critical else "",
        f"{each.agent.label}: {each.agent.status}",
        "◆ " if is_critical else "",
        each.agent.label,
        EMPTY.join(bars),
        seconds_of(each.waiting_s + each.calling_s),
    )


def _costs(calls: Sequence[Call]) -> Markup:
    if not calls:
        return EMPTY
    inside = any("/" in call.name for call in calls)
    tables = (
        _cost_table(title, calls, key)
        for title, key in (
            ("By agent", lambda call: call.agent),
            *((("By inner agent", lambda call: without_indices(call.name)),) if inside else ()),
            ("By module", lambda call: call.module),
            ("By model", lambda call: f"{call.provider}/{call.model}"),
        )
    )
    return Markup('<div class="columns">{}</div>').format(EMPTY.join(tables))


def _cost_table(title: str, calls: Sequence[Call], key: Callable[[Call], str]) -> Markup:
    costs: dict[str, Decimal] = defaultdict(Decimal)
    counts: dict[str, int] = defaultdict(int)
    for call in calls:
        costs[key(call)] += call.cost_usd
        counts[key(call)] += call.kind != "correction"
    most = max(costs.values())
    lines = sorted(costs, key=lambda name: (-costs[name], name))
    shown = [(name, counts[name], costs[name]) for name in lines[:MOST_LINES]]
    if rest := lines[MOST_LINES:]:
        total = sum((costs[name] for name in rest), Decimal(0))
        shown.append((counted(len(rest), "other"), sum(counts[name] for name in rest), total))
    rows = (
        Markup(
            '<tr><td>{}</td><td class="share">{}</td><td class="num">{:,}</td>'
            '<td class="num">{}</td></tr>'
        ).format(name, _meter(float(cost / most) if most else 0.0), count, _money(cost))
        for name, count, cost in shown
    )
    return Markup(
        '<div><h3>{}</h3><table><tr><th></th><th></th><th class="num">calls</th>'
        '<th class="num">cost</th></tr>{}</table></div>'
    ).format(title, EMPTY.join(rows))


def _failures(history: RunHistory, redact: Redact) -> Markup:
    rows = [
        Markup('<tr><td>{}</td><td class="state s-{}">{}</td><td>{}</td></tr>').format(
            group.names,
            state_of(group.outcome),
            group.outcome.replace("_", " "),
            redact(group.cause),
        )
        for group in grouped_incomplete(history.incomplete)
    ]
    return _table(("agent", "state", "cause"), rows)


def _repeated(history: RunHistory) -> list[Attempt]:
    """Return the attempts that failed or were lost, and were followed by another attempt."""
    return [each for each in superseded(history.attempts) if each.outcome in ("failed", "lost")]


def _retries(history: RunHistory, redact: Redact) -> Markup:
    rows = [
        Markup("<tr><td>{}</td><td>{}</td><td>{}</td></tr>").format(
            each.name,
            each.number,
            redact(
                (f"{each.error_class}: " if each.error_class else "")
                + (each.error or "its worker had died")
            ),
        )
        for each in _repeated(history)
    ]
    return _table(("agent", "attempt", "cause"), rows)


def _table(columns: Sequence[str], rows: Sequence[Markup]) -> Markup:
    if not rows:
        return EMPTY
    heads = (Markup("<th>{}</th>").format(name) for name in columns)
    head, first = EMPTY.join(heads), EMPTY.join(rows[:MOST_ROWS])
    table = Markup("<table><tr>{}</tr>{}</table>").format(head, first)
    if len(rows) <= MOST_ROWS:
        return table
    return table + Markup("<details><summary>{} more</summary><table>{}</table></details>").format(
        len(rows) - MOST_ROWS, EMPTY.join(rows[MOST_ROWS:])
    )


def _outputs(outputs: Mapping[str, Any] | None) -> Markup:
    return EMPTY.join(
        Markup("<details open><summary>{}</summary><pre>{}</pre></details>").format(
            name,
            output
            if isinstance(output, str)
            else json_shown(write_json(output, indent=True).decode()),
        )
        for name, output in (outputs or {}).items()
    )


def _money(amount: Decimal) -> str:
    """Format dollars with two digits, and amounts below a dollar with six digits."""
    return aligned_dollars(amount, places=2 if abs(amount) >= 1 or not amount else 6)
