"""Streaming agents, watched live: their text reaches events and the terminal before they end."""

import json
import re
from typing import Any

import pytest
from redis import Redis

from app import Agent, Event, RetryPolicy, RetryStrategy, Run, Workflow, enqueue
from app.examples.tools import check_total
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import Stack

AT_ONCE = RetryPolicy(strategy=RetryStrategy.IMMEDIATE)
# One model of each request form.
MODELS = {0: "gpt-4o-mini", 1: "claude-haiku-4-5", 2: "gpt-4o"}
FORMS = {"gpt-4o": {"api": "responses"}}
SLOW = "Write. [[sim:latency=0.8,ttft=0.2,output_tokens=200]]"


def agent(name: str, model: str, prompt: str, *, stream: bool = True, **fields: Any) -> Agent:
    return Agent(
        name=name,
        prompt_template=prompt,
        llm_config={"model": model, "max_tokens": 400, "stream": stream} | FORMS.get(model, {}),
        **{"retry_policy": AT_ONCE, **fields},
    )


def writers(prompt: str, **fields: Any) -> Workflow:
    agents = [agent(f"w{n}", model, f"{model}: {prompt}", **fields) for n, model in MODELS.items()]
    return Workflow(name="live", agents=agents)


def texts_of(events: list[Event], name: str) -> list[Event]:
    return [event for event in events if event.type == "agent_text" and event.data["agent"] == name]


def durable(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.id, event.type) for event in events if event.type != "agent_text"]


@pytest.mark.usefixtures("stack")
def test_text_comes_live_in_order_and_whole() -> None:
    run = enqueue(writers(SLOW))

    events = list(run.events())

    for name, output in run.outputs.items():
        pieces = texts_of(events, name)
        assert len(pieces) > 2
        assert "".join(piece.data["text"] for piece in pieces) == output
        assert [piece.data["offset"] for piece in pieces] == [
            sum(len(other.data["text"]) for other in pieces[:place]) for place in range(len(pieces))
        ]
        types = [event.type for event in events if event.data.get("agent") == name]
        assert (types[0], types[-1]) == ("agent_started", "agent_completed")
        end = next(event for event in events if event.type == "agent_completed")
        first_token_s = run.results[name].metadata["first_token_s"]
        most_s = at_this_pace(5)
        assert 0.15 < first_token_s < most_s > end.data["first_token_s"] > 0.15
    ids = [event.id for event in events]
    assert ids == sorted(ids)
    assert durable(events) == durable(list(run.events()))


@pytest.mark.usefixtures("stack")
def test_resuming_from_a_text_misses_no_event() -> None:
    run = enqueue(writers(SLOW))
    seen: list[Event] = []
    for event in run.events():
        seen.append(event)
        if event.type == "agent_text":
            break

    rest = list(run.events(after=seen[-1].id))

    assert durable([*seen, *rest]) == durable(list(run.events()))
    assert [event.type for event in rest].count("agent_text") > 1


@pytest.mark.usefixtures("stack")
def test_each_turn_of_a_tool_loop_has_its_own_text() -> None:
    run = enqueue(writers("Use check_total. [[sim:tool_turns=2]]", tools=[check_total]))

    events = list(run.events())

    for name, output in run.outputs.items():
        last = [piece.data for piece in texts_of(events, name) if piece.data["turn"] == 3]
        assert "".join(piece["text"] for piece in last) == output
        assert last[0]["offset"] == 0


@pytest.mark.usefixtures("stack")
def test_a_stream_that_breaks_begins_anew_as_another_attempt() -> None:
    run = enqueue(writers("Write. [[sim:cut_stream,times=1,latency=0.6,output_tokens=60]]"))

    events = list(run.events())

    for name, output in run.outputs.items():
        last = [piece for piece in texts_of(events, name) if piece.attempt == 2]
        assert "".join(piece.data["text"] for piece in last) == output
        types = [event.type for event in events if event.data.get("agent") == name]
        again = types.index("agent_retrying")
        assert types[again - 1] == "agent_text"
        assert types[again + 1] == "agent_started"


def test_agents_that_do_not_stream_send_nothing(stack: Stack) -> None:
    url = stack.urls.redis_url
    with Redis.from_url(url) as redis, redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.psubscribe("agentchord:text:*")
        pubsub.get_message(timeout=1)
        quiet = enqueue(writers("Write.", stream=False))
        quiet.wait(timeout=scaled(30))
        silence = pubsub.get_message(timeout=0.2)
        enqueue(writers("Write.")).wait(timeout=scaled(30))
        message = pubsub.get_message(timeout=scaled(5))

    assert silence is None
    assert message is not None
    assert not any("first_token_s" in result.metadata for result in quiet.results.values())


def test_nothing_of_a_text_is_kept_in_redis_or_in_the_history(stack: Stack) -> None:
    run = enqueue(writers("Write."))
    list(run.events())

    with Redis.from_url(stack.urls.redis_url) as redis:
        assert not list(redis.scan_iter("agentchord:text*"))
    assert stack.sql("SELECT id FROM events WHERE type = 'agent_text'") == []


END = re.compile(r"  w0 \(General.*: completed")


def test_following_on_the_terminal_shows_text_line_by_line(stack: Stack) -> None:
    (stack.folder / "live.json").write_text(json.dumps(writers(SLOW).definition()), "utf-8")

    done = stack.command("run", "live.json", "--follow")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    text = next(place for place, line in enumerate(lines) if line.startswith("  w0 | "))
    end = next(place for place, line in enumerate(lines) if END.match(line))
    assert text < end
    assert "first token " in lines[end]


@pytest.mark.usefixtures("stack")
def test_two_followers_of_one_run_both_hear_it() -> None:
    import threading

    run = enqueue(writers(SLOW))
    heard: list[list[Event]] = [[], []]
    threads = [
        threading.Thread(target=lambda own=own: own.extend(Run(run.id).events()), daemon=True)
        for own in heard
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=scaled(30))

    for events in heard:
        said = "".join(piece.data["text"] for piece in texts_of(events, "w1"))
        assert said == run.outputs["w1"]
