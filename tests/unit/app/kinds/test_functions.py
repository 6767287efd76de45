"""Kinds of agents without workers: validation, functions, and plugins."""

import re
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app import Agent, Workflow
from app.concurrency.user_code import UserCodeFailed
from app.domain.prompt import parsed_text
from app.errors import (
    AgentError,
    FunctionFailed,
    InputRefused,
    UnknownFunction,
    WorkflowError,
    WorkflowFileError,
)
from app.examples import functions as examples
from app.kinds.base import private
from app.kinds.functions import FunctionKind
from app.kinds.registry import KindRegistry
from app.workflow_files.loader import load
from tests.support.kind_contexts import agent_context

pytestmark = pytest.mark.anyio


async def call(function: str, fixed: Any = None, **inputs: Any) -> Any:
    config = {"function": function} | ({"arguments": fixed} if fixed else {})
    kind = FunctionKind(["tests.support.agent_functions", "app.examples.functions"])
    return await kind.run(agent_context(config, attempt=2, **inputs))


def refusal(kind: str, **config: Any) -> WorkflowError:
    agents = [
        Agent(name="first", kind="text_processor"),
        Agent(name="second", kind=kind, config=config),
    ]
    workflow = Workflow(name="w", agents=agents)
    with pytest.raises(WorkflowError) as caught:
        KindRegistry().validate(workflow)
    return caught.value


# ---- definitions ---------------------------------------------------------------------------------


def test_an_agent_of_another_kind_needs_no_prompt_and_no_model() -> None:
    agent = Agent(name="a", kind="function", config={"function": "m:f"})

    workflow = Workflow(name="w", agents=[agent])

    assert (agent.provider, agent.model) == ("function", "function")
    again = Workflow.from_definition(workflow.definition())
    assert again.definition() == workflow.definition()


def test_the_definition_of_an_llm_agent_is_as_it_was_before_there_were_kinds() -> None:
    agent = Agent(name="a", prompt_template="x", llm_config={"model": "gpt-4o"})

    assert {"kind", "config"}.isdisjoint(agent.definition())


@pytest.mark.parametrize(
    ("kind", "queue"), [("function", "function"), ("http", "http"), ("my_plugin", "function")]
)
def test_each_kind_has_a_queue(kind: str, queue: str) -> None:
    assert Agent(name="a", kind=kind).provider == queue


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kind": "no kind"}, "kind"),
        ({"kind": 5}, "kind"),
        ({"kind": "function", "config": [1]}, "config"),
        ({"kind": "function", "config": {"a": date.today}}, "config.a"),
        ({"kind": "function", "prompt_template": "x"}, "prompt_template"),
        ({"kind": "function", "llm_config": {"model": "gpt-4o"}}, "llm_config"),
        ({"kind": "function", "tools": ["x"]}, "tools"),
        ({"prompt_template": "x", "llm_config": {"model": "gpt-4o"}, "config": {"a": 1}}, "config"),
        ({}, "prompt_template"),
    ],
)
def test_what_does_not_fit_the_kind_is_refused_with_its_path(
    fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(WorkflowError) as caught:
        Workflow(name="w", agents=[Agent(name="a", **fields)])

    assert caught.value.field == f"agents[0].{field}"


def test_an_unknown_kind_is_refused_with_a_suggestion() -> None:
    error = refusal("text_procesor")

    assert error.field == "agents[1].kind"
    assert "agent 'second'" in str(error)
    assert "did you mean 'text_processor'?" in str(error)


@pytest.mark.parametrize(
    ("kind", "config", "field", "words"),
    [
        ("function", {}, "config", "lacks 'function'"),
        ("function", {"functoin": "m:f"}, "config.functoin", "did you mean 'function'?"),
        ("function", {"function": "m:f()"}, "config.function", "package.module:name"),
        ("function", {"function": "m:f", "arguments": 5}, "config.arguments", "dict"),
        ("http", {}, "config", "lacks 'url'"),
        ("http", {"url": "ftp://a/b"}, "config.url", "https://"),
        ("http", {"url": "https://user:hush@a/b"}, "config.url", "give credentials as a header"),
        ("http", {"url": "https://a", "timeout": 0}, "config.timeout", "above 0"),
        ("http", {"url": "https://a", "secret_env": "HOME"}, "config.secret_env", "AGENT_SECRET_"),
        (
            "http",
            {"url": "https://a", "headers": {"Authorization": "Bearer hush"}},
            "config.headers.Authorization",
            "would be stored",
        ),
        (
            "http",
            {"url": "https://a", "headers": {"X-Key": {"env": "OPENAI_API_KEY"}}},
            "config.headers.X-Key.env",
            "AGENT_SECRET_",
        ),
        ("http", {"url": "https://a", "headers": {"a": "b\r\nc: d"}}, "config.headers.a", "line"),
        ("http", {"url": "https://a", "headers": {"Host": "b"}}, "config.headers.Host", "remove"),
        ("text_processor", {"operations": ["sum"]}, "config.operations[0]", "'summary'"),
        ("text_processor", {"sentences": 0}, "config.sentences", "from 1"),
        ("data_analyzer", {"types": {"a": "int"}}, "config.types.a", "'integer'"),
        ("data_analyzer", {"required": "a"}, "config.required", "list"),
    ],
)
def test_settings_are_refused_with_the_path_of_what_is_wrong(
    kind: str, config: dict[str, Any], field: str, words: str
) -> None:
    error = refusal(kind, **config)

    assert error.field == f"agents[1].{field}"
    assert words in str(error)
    assert "hush" not in str(error)


def test_a_workflow_file_names_the_line_of_a_wrong_setting(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(
        "name: w\nagents:\n  - name: a\n    kind: http\n    config:\n      url: nowhere\n",
        encoding="utf-8",
    )

    with pytest.raises(WorkflowFileError) as caught:
        load(file)

    assert (caught.value.line, caught.value.field) == (6, "agents[0].config.url")


# ---- plugins -------------------------------------------------------------------------------------

PLUGIN = """
from app.errors import WorkflowError


class Shout:
    def validate(self, config):
        if "volume" not in config:
            raise ValueError("volume is missing")

    def run(self, context):
        return context.inputs["text"].upper() + "!" * context.config["volume"]


async def whisper(context):
    return context.inputs["text"].lower()


def double(number: int) -> int:
    return 2 * number
"""
ENTRY_POINTS = """\
[agentchord.agents]
shout = kinds_of_a_test:Shout
whisper = kinds_of_a_test:whisper
broken = kinds_of_a_test:nothing
[agentchord.functions]
double = kinds_of_a_test:double
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in the form in which pip installs it."""
    (tmp_path / "kinds_of_a_test.py").write_text(PLUGIN, encoding="utf-8")
    about = tmp_path / "kinds_of_a_test-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: kinds-of-a-test\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kinds_of_a_test", raising=False)


@pytest.mark.usefixtures("plugin")
async def test_a_plugin_brings_kinds_by_class_or_function_and_functions() -> None:
    registry = KindRegistry()

    shouted = registry.get("shout").run(agent_context({"volume": 2}, text="Hey"))
    whispered = await registry.get("whisper").run(agent_context(text="Hey"))
    doubled = await call("double", number=21)

    assert (shouted, whispered, doubled) == ("HEY!!", "hey", 42)
    assert registry.get("shout") is registry.get("shout")


@pytest.mark.usefixtures("plugin")
async def test_a_plugin_works_on_copies_away_from_the_loop_of_its_worker() -> None:
    registry = KindRegistry()
    context = agent_context({"volume": 2}, text="Hey", list=[1])

    assert await registry.run("shout", context) == "HEY!!"
    assert await registry.run("whisper", context) == "hey"
    copied = private(context)
    assert copied == context
    assert copied.inputs["list"] is not context.inputs["list"]
    assert copied.config is not context.config
    with pytest.raises(UserCodeFailed, match="cannot be loaded"):
        await registry.run("broken", context)


@pytest.mark.usefixtures("plugin")
def test_a_plugin_refuses_its_settings_in_its_own_words() -> None:
    error = refusal("shout")

    assert (error.field, "volume is missing" in str(error)) == ("agents[1].config", True)
    assert refusal("whisper", volume=1).field == "agents[1].config.volume"


@pytest.mark.usefixtures("plugin")
def test_a_plugin_that_cannot_be_loaded_says_why() -> None:
    assert "AttributeError" in str(refusal("broken"))


# ---- functions -----------------------------------------------------------------------------------


async def test_a_function_gets_its_inputs_as_typed_arguments() -> None:
    lines = [{"item": "bolt", "quantity": 100, "price": "0.19"}]

    result = await call("app.examples.functions:totals", lines=lines, other="ignored")

    assert result == examples.Totals(
        net=Decimal("19.00"), tax=Decimal("3.61"), gross=Decimal("22.61")
    )


async def test_arguments_of_the_config_go_before_inputs() -> None:
    lines = [{"item": "bolt", "quantity": 1, "price": "10"}]

    result = await call(
        "app.examples.functions:totals", {"tax_rate": 0.5}, lines=lines, tax_rate=0.1
    )

    assert result.tax == 5


async def test_a_text_that_is_json_fits_where_its_value_does() -> None:
    text = '```json\n[{"item": "bolt", "quantity": 2, "price": 5}]\n```'

    result = await call("app.examples.functions:totals", lines=text)

    assert result.net == 10
    assert isinstance(parsed_text(text), list)


async def test_a_function_may_take_all_inputs_and_its_context() -> None:
    assert await call("tests.support.agent_functions:everything", a=1, b=None) == {
        "a": 1,
        "b": None,
    }
    told = await call("tests.support.agent_functions:where")
    assert (told["key"], told["attempt"]) == ("ar-2", 2)


async def test_two_parameters_for_the_same_context_are_refused() -> None:
    with pytest.raises(UnknownFunction, match="'one' and 'other' are both a ToolContext"):
        await call("tests.support.agent_functions:two_contexts")


async def test_a_sync_function_runs_in_a_thread_and_an_async_one_on_the_loop_of_user_code() -> None:
    sync = await call("tests.support.agent_functions:where")

    assert sync["thread"] == "tool"
    assert await call("tests.support.agent_functions:where_async") == "user code"


async def test_a_missing_input_is_named_with_what_there_is() -> None:
    with pytest.raises(InputRefused, match="did you mean 'line'") as caught:
        await call("app.examples.functions:totals", line=[])

    assert "takes 'lines'" in str(caught.value)
    assert not caught.value.retriable


async def test_an_input_of_the_wrong_type_is_refused_with_its_path() -> None:
    with pytest.raises(InputRefused, match=r"lines\.0\.quantity"):
        await call("app.examples.functions:totals", lines=[{"item": "x", "quantity": "many"}])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("os:getcwd", "list 'os' under imports"),
        ("tests.support.agent_functions:wher", "did you mean 'where'?"),
        ("tests.support.agent_functions:Path.cwd", "has no function"),
        ("double", "there is no function 'double'"),
        ("tests.support.agent_functions:time", "does not offer 'time' to workflows"),
    ],
)
async def test_a_function_that_the_workers_do_not_load_is_refused(
    function: str, words: str
) -> None:
    with pytest.raises(UnknownFunction, match=re.escape(words)):
        await call(function)


def test_a_private_function_is_refused_when_the_workflow_is_stored() -> None:
    error = refusal("function", function="m:_f")

    assert (error.field, "private" in str(error)) == ("agents[1].config.function", True)


@pytest.mark.parametrize("name", ["leave", "leave_async"])
async def test_whatever_a_function_raises_is_a_failure_that_may_be_retried(name: str) -> None:
    with pytest.raises(FunctionFailed, match="SystemExit: 3") as caught:
        await call(f"tests.support.agent_functions:{name}")

    assert caught.value.retriable


async def test_an_agent_error_of_a_function_stays_what_it_is() -> None:
    with pytest.raises(AgentError, match="no attempt can help") as caught:
        await call("tests.support.agent_functions:refuse")

    assert type(caught.value) is AgentError
