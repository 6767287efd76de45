"""A client that may write to Redis ends no worker, changes no worker and forges no answer."""

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

from app import Agent, Workflow, WorkflowStatus, enqueue
from app.celery import LANE
from app.celery import app as celery
from tests.support.bombs import ZLIB, bomb
from tests.support.pace import scaled
from tests.support.stack import Stack
from tests.support.waiting import wait_until
from workers.remote_control import READING

RUNTIME_S = scaled(60.0)
BASE64 = {"body_encoding": "base64", "delivery_info": {"routing_key": "openai"}}


def encoded(body: Any) -> str:
    return b64encode(json.dumps(body).encode()).decode()


def message(**fields: Any) -> bytes:
    """A message like those of Celery, with other fields in place of some of its own."""
    whole = {
        "body": encoded([[], {}, {}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": LANE, "id": "a", "lang": "py", "argsrepr": "", "kwargsrepr": ""},
        "properties": BASE64 | {"delivery_tag": "tag", "delivery_mode": 2, "priority": 0},
    }
    return json.dumps(whole | fields).encode()


def headed(**headers: Any) -> bytes:
    return message(headers={"task": LANE, "id": "a", **headers})


def headed_with(body: str, **headers: Any) -> bytes:
    return message(body=body, headers={"task": LANE, "id": "a", **headers})


ITEMS = [
    *(b"garbage", b"", b"\xff\xfe", b"[]", b"{}", b"null", b"5", b'"text"', b"[" * 100_000),
    *(b'{"properties": 5}', b'{"properties": {}}', b'{"properties": {"delivery_tag": {}}}'),
    message(body="%%%"),
    message(body=b64encode(b"not JSON").decode()),
    message(body=5),
    message(properties=BASE64 | {"delivery_tag": ["a"]}),
    message(properties={"delivery_tag": "tag", "body_encoding": "rot13"}),
    message(headers=None),
    message(headers=[]),
    message(headers="task"),
    message(headers={}),
    message(**{"content-type": "application/x-python-serialize"}),
    message(**{"content-type": 5, "content-encoding": []}),
    headed(task="agentchord.nothing"),
    headed(task=["agentchord.lane"]),
    headed(id=None),
    headed(id={"a": 1}),
    headed(eta="never", expires=["soon"]),
    headed(eta=5, expires={}),
    headed(eta="9999-12-31T23:59:59", utc="yes"),
    headed(timelimit="long"),
    headed(timelimit=[1, 2, 3]),
    headed(retries="many", root_id=5, group=[], meth=7, shadow=9, origin={}),
    headed(compression="application/x-gzip"),
    headed(compression="nothing"),
    headed(argsrepr=5, kwargsrepr=[], parent_id={}),
]
COMMANDS = [
    *(b"garbage", b"", b"[]", b"{}", b"5", b'{"body": 5}', b"[" * 100_000),
    message(),
    message(body=encoded(None)),
    message(body=encoded({"method": 5})),
    message(body=encoded({"method": "ping", "reply_to": "me"})),
    message(body=encoded({"method": "ping", "pattern": "(a+)+$", "matcher": "pcre"})),
]


def finish_a_run(name: str) -> None:
    """Run agents that need every queue of the worker."""
    models = ("gpt-4o-mini", "claude-haiku-4-5")
    agents = [
        Agent(name=f"a{number}", prompt_template="go", llm_config={"model": model})
        for number, model in enumerate(models)
    ]
    config = {"function": "tests.support.agent_functions:where_async"}
    agents.append(Agent(name="f", kind="function", config=config, dependencies=["a0", "a1"]))

    assert enqueue(Workflow(name=name, agents=agents)).wait(RUNTIME_S) is WorkflowStatus.COMPLETED


def put_items(redis: Redis) -> None:
    for queue in ("openai", "anthropic", "function", "scheduler", "openai\x06\x169"):
        redis.lpush(queue, *ITEMS)


def publish(redis: Redis) -> None:
    for channel in ("/0.celery.pidbox", "/0.celeryev/task.sent", "agentchord:signals"):
        for text in COMMANDS:
            redis.publish(channel, text)


def replace_keys(redis: Redis) -> None:
    for key in ("openai", "scheduler", "unacked", "unacked_index", "anthropic\x06\x163"):
        redis.delete(key)
        redis.sadd(key, "of another type")


@pytest.mark.parametrize("harm", [put_items, publish, replace_keys])
def test_what_is_written_to_redis_ends_no_worker_and_no_run(
    stack: Stack, harm: Callable[[Redis], None]
) -> None:
    (worker,) = stack.workers
    with Redis.from_url(stack.urls.redis_url) as redis:
        harm(redis)
        finish_a_run(f"after {harm.__name__}")
        wait_until(lambda: not redis.llen("openai\x06\x169"), what="the items are taken")

    finish_a_run(f"again after {harm.__name__}")

    assert worker.process.poll() is None


def peak_bytes(process: psutil.Process) -> int:
    """Return the most memory that a process, and each process that it has started, has had."""
    processes = [process, *process.children(recursive=True)]
    texts = [Path(f"/proc/{each.pid}/status").read_text() for each in processes]
    return max(int(text.split("VmHWM:")[1].split()[0]) for text in texts) * 1024


def test_a_compressed_message_takes_no_memory(stack: Stack) -> None:
    (worker,) = stack.workers
    process = psutil.Process(worker.process.pid)
    body = b64encode(bomb(b"x" * 1_000_000, 600, wbits=ZLIB)).decode()
    finish_a_run("before a bomb")
    before = peak_bytes(process)

    with Redis.from_url(stack.urls.redis_url) as redis:
        redis.lpush("openai", headed_with(body, compression="application/x-gzip"))
        finish_a_run("after a bomb")

    assert peak_bytes(process) - before < 200_000_000


ORDERS: dict[str, dict[str, Any]] = {
    "shutdown": {},
    "rate_limit": {"task_name": LANE, "rate_limit": "1/h"},
    "time_limit": {"task_name": LANE, "hard": 1, "soft": 1},
    "add_consumer": {"queue": "celery"},
    "cancel_consumer": {"queue": "openai"},
    "pool_shrink": {"n": 1000},
    "pool_grow": {"n": 1},
    "pool_restart": {"modules": ["os"]},
    "autoscale": {"max": 1, "min": 1},
    "revoke": {"task_id": "a", "terminate": True},
    "terminate": {"signal": "KILL", "task_id": "a"},
    "revoke_by_stamped_headers": {"headers": {"a": "b"}},
    "disable_events": {},
    "election": {"id": "a", "topic": "b"},
    "hello": {"from_node": "x", "revoked": {"a": 1}},
    "memdump": {},
    "objgraph": {},
}


def test_remote_commands_only_read(stack: Stack) -> None:
    def answer_to(name: str, arguments: dict[str, Any]) -> Any:
        control: Any = celery.control
        options = {"reply": True, "limit": 1, "timeout": RUNTIME_S}
        (answers,) = control.broadcast(name, arguments=arguments, **options)
        return next(iter(answers.values()))

    orders = {name: answer_to(name, arguments) for name, arguments in ORDERS.items()}
    read = {name: answer_to(name, {}) for name in READING}

    for name, answer in orders.items():
        assert f"does not obey the remote command {name!r}" in answer["error"]
        assert "remote_control" in answer["error"]
    assert not any("error" in answer for answer in read.values())
    assert not ORDERS.keys() & READING
    finish_a_run("after orders")
    assert stack.workers[0].process.poll() is None
