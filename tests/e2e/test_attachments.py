"""Invoices as images and PDFs on a whole stack: both protocols, folder, URL and base64."""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app import Agent, RetryPolicy, RetryStrategy, Workflow, WorkflowStatus, enqueue
from app.client.run import Run
from app.llm.parts import part_of, size_in
from app.llm.tokens import upper_bound_tokens
from app.workflow_files.loader import load
from tests.support.file_server import serving_files
from tests.support.ledgers import assert_ledgers_agree
from tests.support.media import pdf, png
from tests.support.pace import scaled
from tests.support.stack import CONFIGURATION, ROOT, Stack, client_of, run_stack

EXAMPLE = ROOT / "app" / "examples" / "invoices.yaml"
MODELS = {"openai": "gpt-4o", "anthropic": "claude-sonnet-5"}
SCAN = png(1240, 1754)
INVOICE = pdf("Invoice 2026-0007", "Total: 1,190.00 EUR, due on 2026-12-31")
SCHEMA = {
    "type": "object",
    "properties": {"total": {"type": "number"}, "paid": {"type": "boolean"}},
    "required": ["total", "paid"],
}
# The bytes of a file in base64 that no table may contain.
NEVER_STORED = base64.b64encode(SCAN)[40:80].decode()


@dataclass
class Office:
    """A stack whose workers read a folder of invoices, and a server with the same files."""

    stack: Stack
    folder: Path
    url: str


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("invoices")
    (folder / "scan.png").write_bytes(SCAN)
    (folder / "invoice.pdf").write_bytes(INVOICE)
    (folder / "note.txt").write_text("Paid in cash.")
    configuration = (
        f"{CONFIGURATION}\nattachments:\n  folder: {folder}\n"
        "  allowed_networks: [127.0.0.0/8]\nretry: {base_delay: 0.05, jitter: false}\n"
    )
    with (
        pytest.MonkeyPatch.context() as patch,
        serving_files(folder) as url,
        run_stack(
            tmp_path_factory.mktemp("stack"),
            *("openai", "anthropic", "scheduler"),
            configuration=configuration,
        ) as stack,
        client_of(stack, patch),
    ):
        yield Office(stack, folder, url)
        entries = stack.sql("SELECT * FROM cost_entries")
        assert_ledgers_agree(entries, stack.simulator.ledger())


def reader(protocol: str, *entries: Any, **fields: Any) -> Agent:
    fields.setdefault("prompt_template", "Read the invoice. What is its total, and is it paid?")
    config = {"model": MODELS[protocol], "max_tokens": 200}
    return Agent(name="reader", llm_config=config, attachments=entries, **fields)


def finished(*agents: Agent, given: Any = None, budget: float = 5.0) -> Run:
    workflow = Workflow(name="invoices", agents=agents, cost_budget=budget)
    run = enqueue(workflow, given or {})
    run.wait(timeout=scaled(60))
    return run


def sent(office: Office, run: Run) -> list[list[str]]:
    """Return the hashes of the files of each request of a run, in order."""
    rows = office.stack.sql(
        "SELECT request_id FROM cost_entries WHERE run_id = %s ORDER BY id", run.id
    )
    by_id = {record["request_id"]: record for record in office.stack.simulator.ledger()}
    return [list(by_id[row["request_id"]]["files"]) for row in rows]


def calls(office: Office, run: Run) -> list[dict[str, Any]]:
    return office.stack.sql("SELECT * FROM cost_lines WHERE run_id = %s", run.id)


def hashed(*contents: bytes) -> list[str]:
    return [hashlib.sha256(content).hexdigest()[:16] for content in contents]


@pytest.mark.parametrize("protocol", MODELS)
def test_an_invoice_as_image_and_pdf_is_read_and_paid_for(office: Office, protocol: str) -> None:
    entries = ({"path": "{scan}", "detail": "high"}, "{invoice}", "note.txt")
    agent = reader(protocol, *entries, output_schema=SCHEMA)

    run = finished(agent, given={"scan": "scan.png", "invoice": "invoice.pdf"})

    assert run.status is WorkflowStatus.COMPLETED, run.results["reader"].error
    assert set(run.results["reader"].output) == {"total", "paid"}
    assert sent(office, run) == [hashed(SCAN, INVOICE)]
    parts = [part_of(SCAN, detail="high"), part_of(INVOICE, name="invoice.pdf")]
    messages = [{"role": "user", "content": parts}]
    (call,) = calls(office, run)
    assert 1500 < call["prompt_tokens"] <= upper_bound_tokens(messages, model=MODELS[protocol])


def test_the_example_reads_an_invoice_as_pdf_and_one_as_image(office: Office) -> None:
    file = load(EXAMPLE)

    run = enqueue(file.workflow, file.input)
    run.wait(timeout=scaled(60))

    assert run.status is WorkflowStatus.COMPLETED, run.results
    assert all(
        set(each) == {"supplier", "total", "currency"} for each in run.results["reader"].output
    )
    pages = [size_in(part_of(base64.b64decode(each))) for each in file.input["invoices"]]
    assert [type(size).__name__ for size in pages] == ["PdfSize", "ImageSize"]
    assert len(sent(office, run)) == 3


@pytest.mark.parametrize("protocol", MODELS)
def test_urls_and_base64_send_the_same_bytes(office: Office, protocol: str) -> None:
    scan = base64.b64encode(SCAN).decode()
    given = {"files": [f"{office.url}/scan.png", f"data:image/png;base64,{scan}"], "raw": scan}

    run = finished(reader(protocol, "{files}", {"base64": "{raw}"}), given=given)

    assert run.status is WorkflowStatus.COMPLETED, run.results["reader"].error
    assert sent(office, run) == [hashed(SCAN, SCAN, SCAN)]


def test_an_earlier_output_names_the_files_of_each_item(office: Office) -> None:
    finder = Agent(
        name="finder",
        prompt_template='[[sim:reply={"files": ["scan.png", "invoice.pdf"]}]]',
        llm_config={"model": "gpt-4o-mini", "max_tokens": 100},
    )
    items = reader("openai", "{item}", for_each="finder.files", dependencies=["finder"])

    run = finished(finder, items)

    assert run.status is WorkflowStatus.COMPLETED, run.results
    assert sorted(sent(office, run)[1:]) == sorted([hashed(SCAN), hashed(INVOICE)])


@pytest.mark.parametrize("protocol", MODELS)
def test_a_conversation_with_tools_sends_the_files_each_time_and_stores_them_never(
    office: Office, protocol: str
) -> None:
    agent = reader(
        protocol,
        "scan.png",
        prompt_template="Use check_total. [[sim:tool_turns=2]]",
        tools=["check_total"],
    )

    run = finished(agent)

    assert run.status is WorkflowStatus.COMPLETED, run.results["reader"].error
    assert sent(office, run) == [hashed(SCAN)] * 3
    for table in ("turns", "events", "agent_runs", "attempts", "runs", "cost_entries"):
        stored = office.stack.sql(
            f"SELECT count(*) AS rows FROM {table} t WHERE strpos(t::text, %s) > 0", NEVER_STORED
        )
        assert stored == [{"rows": 0}] or table == "runs"


def test_a_repeated_attempt_sends_the_same_bytes(office: Office) -> None:
    agent = reader("openai", "scan.png", prompt_template="Go. [[sim:status=503,times=1]]")

    run = finished(agent)

    assert run.status is WorkflowStatus.COMPLETED, run.results["reader"].error
    assert sent(office, run) == [hashed(SCAN)] * 2


def test_a_file_that_changes_between_attempts_fails_in_words_and_a_retry_sends_it_anew(
    office: Office,
) -> None:
    file = office.folder / "changing.png"
    file.write_bytes(png(10, 10))
    later = RetryPolicy(strategy=RetryStrategy.CONSTANT_DELAY, base_delay=2.0, jitter=False)
    prompt = "Change. [[sim:status=503,times=1]]"
    agent = reader("openai", "changing.png", prompt_template=prompt, retry_policy=later)
    run = enqueue(Workflow(name="changing", agents=[agent], cost_budget=5.0))

    for event in run.events():
        if event.type == "agent_retrying":
            file.write_bytes(png(20, 20))
    run.wait(timeout=scaled(60))
    failed, ended = run.results["reader"], run.status

    assert ended == "failed"
    assert "attachments have changed since an earlier attempt" in (failed.error or "")
    assert f"agentchord retry {run.id}" in (failed.error or "")
    assert run.retry_failed()
    run.wait(timeout=scaled(60))
    assert run.status == "completed"
    assert sent(office, run) == [hashed(png(10, 10)), hashed(png(20, 20))]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("../stack/agentchord.yaml", "leads out of the working folder"),
        ("/etc/passwd", "is not relative"),
        ("gone.pdf", "there is no file 'gone.pdf'"),
        ("http://169.254.169.254/latest/meta-data/", "is not public"),
        ({"base64": "UEsDBBQAAAAIAA=="}, "give a PNG, JPEG, GIF or WebP image, a PDF"),
    ],
)
def test_a_file_that_may_not_be_sent_fails_its_agent_before_any_call(
    office: Office, entry: Any, problem: str
) -> None:
    run = finished(reader("openai", entry))

    result = run.results["reader"]
    assert run.status is WorkflowStatus.FAILED
    assert "agent 'reader': attachments[0]" in (result.error or "")
    assert problem in (result.error or "")
    assert (result.cost, result.retry_count) == (0, 0)
    assert sent(office, run) == []


def test_a_budget_that_cannot_cover_the_files_refuses_them_before_the_call(
    office: Office,
) -> None:
    run = finished(reader("openai", *["invoice.pdf"] * 20, cost_limit=0.02))

    assert run.status is WorkflowStatus.FAILED
    assert run.results["reader"].status == "budget_exceeded"
    assert sent(office, run) == []


def test_equal_files_share_an_answer_and_other_files_do_not(office: Office) -> None:
    (office.folder / "other.png").write_bytes(png(1240, 1755))
    (office.folder / "same.png").write_bytes(SCAN)

    runs = [
        finished(reader("openai", name, cache=True, prompt_template="Cached?"))
        for name in ("scan.png", "same.png", "other.png")
    ]

    assert all(run.status is WorkflowStatus.COMPLETED for run in runs)
    served = [record["files"] for record in office.stack.simulator.ledger()]
    assert sum(run.results["reader"].cost > 0 for run in runs) == 2
    assert served.count(hashed(png(1240, 1755))) == 1


def test_a_plan_counts_the_files_and_bounds_the_run(office: Office) -> None:
    agent = reader("openai", "{scan}", "{invoice}")
    file = office.stack.folder / "invoices.json"
    workflow = Workflow(name="invoices", agents=[agent]).definition()
    keys = ("name", "prompt_template", "llm_config", "attachments")
    agents = [{key: each[key] for key in keys} for each in workflow["agents"]]
    given = {"scan": "scan.png", "invoice": "invoice.pdf"}
    file.write_text(json.dumps({"name": "invoices", "agents": agents, "input": given}))

    told = office.stack.command("plan", str(file), "--json")
    plan = json.loads(told.stdout)["agents"][0]
    run = finished(agent, given=given)

    (call,) = calls(office, run)
    assert not plan["attachments_unread"]
    assert plan["input_tokens"] == pytest.approx(call["prompt_tokens"], rel=0.02)
    assert float(call["cost_usd"]) <= float(plan["worst_usd"]) < 0.05
