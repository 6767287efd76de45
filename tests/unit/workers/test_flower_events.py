"""The events that Flower gets of agents, and what they hide unless it is configured."""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import Celery

from app.domain.events import RunEvent
from app.domain.plain_text import shown
from app.domain.status import AgentStatus
from app.storage.records import Ending
from app.telemetry.redaction import Redactor
from tests.support.calls import call_of
from tests.support.jobs import ID, agent_of, job_of
from workers.flower_events import MAX_CHARS, FlowerEvents
from workers.inflight import Lease
from workers.jobs import Job
from workers.requests import NamedRequest

KEY = "sk-planted-0123456789abcdef0123456789"
PROMPT, OUTPUT = f"about Zephyr, {KEY}", f"Zephyr it is, {KEY}"
ERROR = f"the provider said: no Zephyr, {KEY}"


def flower_events(*, payloads: bool) -> FlowerEvents:
    return FlowerEvents(Celery(), "w@host", redact=Redactor().text, payloads=payloads)


def sent(by: FlowerEvents) -> list[tuple[str, dict[str, Any]]]:
    return [cast(Any, by._queue.get_nowait()) for _ in range(by._queue.qsize())]


def announced(*, attempt: int = 1) -> Job:
    lease = Lease(id=ID, attempt=attempt, task=cast(Any, None))
    job = job_of(agent_of("gpt-4o-mini"), attempt=attempt, lease=lease)
    job.prompt = PROMPT
    job.settling.note(call_of("gpt-4o-mini"))
    return job


DONE = Ending(
    run_id=ID,
    name="a",
    status=AgentStatus.COMPLETED,
    outcome="completed",
    event="agent_completed",
    output=OUTPUT,
)
BROKEN = replace(
    DONE, status=AgentStatus.FAILED, outcome="failed", error=ERROR, error_class="BadRequest"
)


def event(type_: str, attempt: int | None, **data: Any) -> RunEvent:
    return RunEvent(
        id=1,
        run_id=ID,
        agent_run_id=ID,
        attempt=attempt,
        type=type_,
        at=datetime.now(UTC),
        data={"agent": "a"} | data,
    )


@pytest.mark.parametrize("ending", [DONE, BROKEN], ids=["done", "broken"])
def test_neither_prompt_nor_output_nor_error_is_sent_by_default(ending: Ending) -> None:
    by = flower_events(payloads=False)

    by.started(announced())
    by.ended(announced(), ending)
    by.tell([event("agent_failed", 1, error=ERROR, error_class="RecoveriesExhausted")])

    (_, received), (_, started), (_, ended), (_, silent) = found = sent(by)
    assert "Zephyr" not in repr(found)
    assert received["name"] == "agent.a"
    assert {"run_id", "workflow", "model", "attempt"} == set(eval(received["kwargs"]))
    assert started["uuid"] == ended["uuid"] == str(ID)
    assert ended["result"] == "$0.01"
    assert ended["exception"] == (None if ending is DONE else "BadRequest")
    assert silent["exception"] == "RecoveriesExhausted"


def test_who_wants_them_gets_them_without_secrets_and_short() -> None:
    by = flower_events(payloads=True)

    by.ended(announced(), DONE)
    by.ended(announced(), BROKEN)
    by.ended(announced(), replace(DONE, output="x" * 3 * MAX_CHARS))

    (_, done), (_, broken), (_, long) = found = sent(by)
    assert "sk-planted" not in repr(found)
    assert "about Zephyr" in done["args"]
    assert done["result"] == "$0.01 Zephyr it is, [redacted]"
    assert broken["exception"] == "BadRequest: the provider said: no Zephyr, [redacted]"
    assert MAX_CHARS < len(long["result"]) < MAX_CHARS + 100


def test_a_further_attempt_begins_with_a_retry_because_the_worker_before_may_be_dead() -> None:
    by = flower_events(payloads=False)

    by.started(announced(attempt=2))

    assert [kind for kind, _ in sent(by)] == ["task-retried", "task-received", "task-started"]


@pytest.mark.parametrize(
    ("happened", "kinds"),
    [
        (event("agent_cancelled", None, error="upstream"), ["task-received", "task-revoked"]),
        (event("agent_completed", 1, items=3, failed=0), ["task-succeeded"]),
        (event("agent_failed", 1, run_id="r", error_class="SubWorkflowFailed"), ["task-failed"]),
        (event("agent_completed", 1), []),
        (event("agent_cancelled", 2, error="stopped"), []),
    ],
)
def test_only_ends_that_no_worker_has_sent_are_sent_from_the_history(
    happened: RunEvent, kinds: list[str]
) -> None:
    by = flower_events(payloads=False)

    by.tell([happened])

    assert [kind for kind, _ in sent(by)] == kinds


def test_a_flower_that_starts_late_hears_the_name_with_the_end() -> None:
    by = flower_events(payloads=False)
    by.ended(announced(), DONE)
    by.tell([event("agent_failed", 2, agent="b[3]", error_class="RecoveriesExhausted")])

    (_, ended), (_, lost) = sent(by)

    assert (ended["name"], lost["name"]) == ("agent.a", "agent.b")
    assert str(ID) in ended["kwargs"]


def test_lanes_that_were_received_before_flower_listened_have_a_name() -> None:
    sent: list[tuple[str, dict[str, Any]]] = []

    class Eventer:
        enabled = True

        def send(self, type_: str, **fields: Any) -> None:
            sent.append((type_, fields))

    @Celery().task(name="agentchord.lane")
    def lane() -> None:
        """Carry nothing."""

    headers = {"id": "1", "task": lane.name, "argsrepr": "('run', 0)", "kwargsrepr": "{}"}
    message = SimpleNamespace(
        headers=headers, body=b"", content_type="", content_encoding="", delivery_info={},
        properties={}, payload=((), {}, {}),
    )  # fmt: skip
    request = NamedRequest(
        message, task=lane, eventer=Eventer(), decoded=True, body=message.payload
    )

    request.send_event("task-succeeded", runtime=1.0)

    ((_, fields),) = sent
    assert (fields["name"], fields["args"]) == ("agentchord.lane", "('run', 0)")


def test_texts_are_shown_in_flower_as_on_a_terminal() -> None:
    hostile = "\x1b]8;;http://x\x07\r\x85\u202e\u200b"
    by = flower_events(payloads=True)

    for ending in (replace(DONE, output=hostile), replace(BROKEN, error=hostile)):
        job = announced()
        job.prompt = hostile
        by.ended(job, ending)

    (_, done), (_, failed) = sent(by)
    assert done["result"].endswith(shown(hostile))
    assert failed["exception"] == f"BadRequest: {shown(hostile)}"
    assert done["args"].isprintable()
