"""The page of a run: it is complete, fetches nothing, and no text becomes markup."""

import re
from decimal import Decimal
from html.parser import HTMLParser

from app.domain.status import AgentStatus
from app.monitoring.report import report_page
from app.telemetry.redaction import Redactor
from tests.support.histories import agent, at, attempt, call, event, history, incomplete

HOSTILE = "<script>alert('x')</script>\"'&"
VOID = {"meta", "br", "rect", "path"}


class Balance(HTMLParser):
    """The elements of a page, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Balance:
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    return balance


def small(error: str = "no such model", name: str = "screener") -> str:
    run = history(
        agent("parser", finished_at=at(2)),
        agent(name, 1, status=AgentStatus.FAILED, error=error, finished_at=at(5)),
        dependencies={name: ["parser"]},
        attempts=(
            attempt("parser", 0, 0.5, outcome="failed", error="503", error_class="ServerFailure"),
            attempt("parser", 1, 2, number=2),
            attempt(name, 3, 5, outcome="failed", error=error, error_class="NotFound"),
        ),
        calls=(
            call("parser", 0, 0.5, outcome="ServerFailure", cost_usd=Decimal(0)),
            call("parser", 1, 2),
        ),
        events=(event("run_paused", 3), event("run_resumed", 3.5)),
    )
    return report_page(run)


def test_the_page_has_every_part() -> None:
    page = small()

    balance = parsed(page)
    titles = re.findall(r"<h2>([^<]+)</h2>", page)
    assert titles == ["Why", "Graph", "Timeline", "Costs", "Failures", "Retries"]
    assert balance.seen.count("svg") == 1
    assert page.count('class="row crit"') == 2
    for part in ("queued", "held", "away", "calling", "pausing"):
        assert f'<i class="{part}"' in page
    for heading in ("By agent", "By module", "By model"):
        assert f"<h3>{heading}</h3>" in page
    assert "ServerFailure: 503" in page


def test_no_text_of_a_run_becomes_markup() -> None:
    page = small(error=HOSTILE, name=HOSTILE)

    balance = parsed(page)
    assert "script" not in balance.seen
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_page_fetches_nothing() -> None:
    page = small()

    assert {name for name, _ in parsed(page).attributes} & {"src", "href", "onload"} == set()
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(", page)


def test_the_page_is_made_for_phones_paper_and_the_dark() -> None:
    page = small()

    assert 'name="viewport"' in page
    for query in ("max-width: 560px", "@media print", "prefers-color-scheme: dark"):
        assert query in page


def test_what_is_inside_lists_and_sub_workflows_is_in_the_page() -> None:
    run = history(
        agent("handled", item_count=3, items_ended=3, items_failed=1, items_partial=1),
        incomplete=(
            incomplete("handled[0]", "failed", "no", "BadRequest"),
            incomplete("handled[2]", "partial"),
            incomplete("handled[2]/draft", "cancelled", "upstream failed: read"),
        ),
        calls=(
            call("handled", 0, 1, path="handled[1]/read", cost_usd=Decimal("0.25")),
            call("handled", 0, 1, path="handled[2]/read", cost_usd=Decimal("0.5")),
        ),
        run={"spent_usd": Decimal("0.75")},
    )

    page = report_page(run)

    assert "<b>$0.750000</b>" in page
    assert "agents ended, 1 element failed, 1 element partial" in page
    for part in ("handled[0]", "BadRequest: no", "handled[2]", "handled[2]/draft"):
        assert f"<td>{part}</td>" in page
    assert re.search(r"By inner agent.*?<td>handled/read</td>.*?<td class=\"num\">2</td>", page)


def test_outputs_are_shown_only_if_asked_for() -> None:
    run = history(agent("a"), attempts=(attempt("a", 0, 1),))

    page = report_page(run, {"a": HOSTILE, "b": {"key": [1]}})

    assert "<h2>Outputs</h2>" not in report_page(run)
    assert "<h2>Outputs</h2>" in page
    assert "<script" not in page


def test_a_key_in_an_error_is_not_in_the_page() -> None:
    key = "sk-proj-abcdefghijklmnopqrstuvwxyz"
    run = history(agent("a", status="failed", error=f"bad key {key}"))

    assert key not in report_page(run, redact=Redactor().text)


def test_five_hundred_agents_are_folded() -> None:
    crowd = [
        agent(
            f"a{number}", number // 100, module=f"m{number % 3}", finished_at=at(number // 100 + 1)
        )
        for number in range(500)
    ]
    run = history(
        *crowd,
        dependencies={f"a{number}": [f"a{number - 100}"] for number in range(100, 500)},
        attempts=tuple(attempt(one.name, one.level, one.level + 1) for one in crowd),
    )

    page = report_page(run)

    parsed(page)
    assert page.count('class="node"') == 15
    before, _, folded = page.partition("more agents</summary>")
    assert before.count('class="row') < 50
    assert folded.count('class="row') > 400
    assert len(page) < 500_000


def test_a_run_that_has_not_begun_has_a_page_too() -> None:
    waiting = agent("a", status="pending", started_at=None)

    page = report_page(history(waiting, run={"started_at": None, "status": "pending"}))

    parsed(page)
    assert "<h2>Graph</h2>" in page
    assert "<h2>Timeline</h2>" not in page


def test_outputs_show_integers_with_all_their_digits() -> None:
    large = (1 << 70) + 1

    page = report_page(history(agent("a", finished_at=at(1))), {"a": {"id": large}})

    assert str(large) in page
