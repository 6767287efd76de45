"""The graph of a run as SVG: a column for each level, and many agents of a module as one box."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from markupsafe import Markup

from app.monitoring.progress import AgentProgress
from app.monitoring.run_history import RunHistory

#: If there are more agents than this, the agents of the same level and module share a box. If there
#: are still more boxes than this, all agents of a level share a box.
MOST_BOXES = 48
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 158, 42, 56, 12, 6
HEAD = 22
NAME_CHARS = 20
#: Smallest scale of the graph; on a narrower screen, the graph scrolls.
READABLE = 0.7
STATES = (
    *("completed", "partial", "running", "waiting"),
    *("pending", "skipped", "cancelled", "failed"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Box:
    level: int
    title: str
    agents: tuple[AgentProgress, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(agent.name for agent in self.agents)


def state_of(status: str) -> str:
    """Return the name of a state's colour; all failures share one colour."""
    return status if status in STATES else "failed"


def graph(history: RunHistory, critical: Collection[str]) -> Markup:
    """Draw the graph.

    Args:
        history: The run.
        critical: Names of the agents of the critical path.
    """
    boxes = _boxes(history)
    columns: dict[int, list[_Box]] = {}
    for box in boxes:
        columns.setdefault(box.level, []).append(box)
    tallest = max((len(column) for column in columns.values()), default=0)
    places: dict[str, tuple[int, int, int]] = {}
    drawn: list[Markup] = []
    for level, column in columns.items():
        x = MARGIN + level * (BOX_WIDTH + GAP_X)
        drawn.append(_text(x, 13, f"level {level + 1}", "dim"))
        offset = (tallest - len(column)) * (BOX_HEIGHT + GAP_Y) // 2
        for place, box in enumerate(column):
            y = HEAD + offset + place * (BOX_HEIGHT + GAP_Y)
            index = len(places)
            places |= dict.fromkeys(box.names, (index, x, y))
            drawn.append(_draw(box, x, y, is_critical=bool(box.names & set(critical))))
    width = 2 * MARGIN + len(columns) * (BOX_WIDTH + GAP_X) - GAP_X
    height = HEAD + tallest * (BOX_HEIGHT + GAP_Y) + MARGIN
    edges = _edges(history, places, critical)
    return Markup(
        '<svg class="graph" viewBox="0 0 {w} {h}" role="img" '
        'style="width:100%;max-width:{w}px;min-width:{least:.0f}px" '
        'aria-label="The agents by level, with their states">{edges}{boxes}</svg>'
    ).format(
        w=max(width, BOX_WIDTH),
        h=height,
        least=READABLE * width,
        edges=edges,
        boxes=Markup("").join(drawn),
    )


def _boxes(history: RunHistory) -> list[_Box]:
    agents = history.run.agents
    if len(agents) <= MOST_BOXES:
        return [_Box(level=each.level, title=each.label, agents=(each,)) for each in agents]
    for by_module in (True, False):
        groups: dict[tuple[int, str], list[AgentProgress]] = {}
        for each in agents:
            groups.setdefault((each.level, each.module if by_module else ""), []).append(each)
        if len(groups) <= MOST_BOXES:
            break
    return [
        _Box(level=level, title=module or f"level {level + 1}", agents=tuple(members))
        for (level, module), members in groups.items()
    ]


def _draw(box: _Box, x: int, y: int, *, is_critical: bool) -> Markup:
    counts = Counter(
        "partial" if agent.is_partial else state_of(agent.status) for agent in box.agents
    )
    stripes, at = [], float(x + 1)
    for state in STATES:
        if counts[state]:
            part = (BOX_WIDTH - 2) * counts[state] / len(box.agents)
            stripes.append(
                Markup('<rect class="{s}" x="{x:.1f}" y="{y}" width="{w:.1f}" height="4"/>').format(
                    s=state, x=at, y=y + BOX_HEIGHT - 6, w=part
                )
            )
            at += part
    first = box.agents[0]
    alone = "partial" if first.is_partial else str(first.status)
    below = alone if len(box.agents) == 1 else _summary(counts, len(box.agents))
    title = f"{box.title} ({first.module}, {first.model})" if len(box.agents) == 1 else box.title
    return Markup(
        '<g{crit}><title>{title}: {below}</title><rect class="node" x="{x}" y="{y}" rx="7" '
        'width="{w}" height="{h}"/>{stripes}{name}{state}</g>'
    ).format(
        crit=Markup(' class="crit"') if is_critical else "",
        title=title,
        below=below,
        x=x,
        y=y,
        w=BOX_WIDTH,
        h=BOX_HEIGHT,
        stripes=Markup("").join(stripes),
        name=_text(x + 10, y + 16, _cut(box.title), ""),
        state=_text(x + 10, y + 30, _cut(below, 26), "dim"),
    )


def _summary(counts: Counter[str], total: int) -> str:
    if len(counts) == 1:
        return f"{total} {next(iter(counts))}"
    parts = (f"{counts[state]} {state}" for state in ("partial", "failed") if counts[state])
    return f"{total}: " + ", ".join((f"{counts['completed']} done", *parts))


def _edges(
    history: RunHistory, places: dict[str, tuple[int, int, int]], critical: Collection[str]
) -> Markup:
    lines: dict[tuple[int, int], tuple[str, bool]] = {}
    for name, needed in history.dependencies.items():
        for other in needed:
            if name not in places or other not in places:
                continue
            (source, x1, y1), (target, x2, y2) = places[other], places[name]
            is_critical = name in critical and other in critical
            known = lines.get((source, target))
            start, end = x1 + BOX_WIDTH, x2
            bend = (start + end) / 2
            path = (
                f"M{start} {y1 + BOX_HEIGHT / 2:g}C{bend:g} {y1 + BOX_HEIGHT / 2:g} "
                f"{bend:g} {y2 + BOX_HEIGHT / 2:g} {end} {y2 + BOX_HEIGHT / 2:g}"
            )
            lines[source, target] = path, is_critical or (known is not None and known[1])
    ordered = sorted(lines.values(), key=lambda line: line[1])
    return Markup("").join(
        Markup('<path class="edge{c}" d="{d}"/>').format(c=" crit" if crit else "", d=path)
        for path, crit in ordered
    )


def _text(x: int, y: int, text: str, kind: str) -> Markup:
    return Markup('<text class="{k}" x="{x}" y="{y}">{t}</text>').format(k=kind, x=x, y=y, t=text)


def _cut(text: str, most: int = NAME_CHARS) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
