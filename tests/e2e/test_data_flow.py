"""Data that flows between agents: mappings, the shared context, conditions, structured output."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, enqueue
from app.errors import WorkflowError
from app.workflow_files.loader import load
from tests.support.pace import scaled
from tests.support.stack import Stack

WAIT_S = scaled(30.0)
MODELS = ["gpt-4o-mini", "claude-haiku-4-5"]


class Line(BaseModel):
    name: str
    amount: float


class Invoice(BaseModel):
    vendor: str
    total: float
    lines: list[Line]
    note: str | None = None


EXAMPLES = Path(__file__).parents[2] / "app" / "examples"


def agent(name: str, prompt: str = "go", *dependencies: str, **fields: Any) -> Agent:
    fields.setdefault("llm_config", {"model": "gpt-4o-mini"})
    return Agent(name=name, prompt_template=prompt, dependencies=dependencies, **fields)


def run_of(*agents: Agent, input_: dict[str, Any] | None = None, **rules: Any) -> Run:
    run = enqueue(Workflow(name="data-flow", agents=agents, **rules), input=input_ or {})
    run.wait(timeout=WAIT_S)
    return run


def statuses(run: Run) -> dict[str, str]:
    return {name: result.status.value for name, result in run.results.items()}


def prompts(stack: Stack) -> list[str]:
    return [record["prompt"] for record in stack.simulator.ledger()]


def reply(text: str) -> str:
    return f"[[sim:reply={text.replace('{', '{{').replace('}', '}}')}]]"


def sentiment(word: str) -> Agent:
    return agent(
        "sentiment_analysis",
        "What is the sentiment of {text}? " + reply(f'{{"sentiment": "{word}"}}'),
        input_mapping={"text": "input_text"},
        output_mapping={"sentiment": "content_sentiment"},
    )


SUMMARY = agent(
    "text_summary",
    "Summarise {text}, which is {mood}: {content_sentiment}. [[sim:reply=It is good.]]",
    "sentiment_analysis",
    input_mapping={"text": "input_text", "mood": "sentiment_analysis.sentiment"},
    output_mapping={"$": "content_summary"},
    condition="content_sentiment == positive",
)
REPORT = agent("report", "Report {content_summary} of {text_summary}", "text_summary")


def test_prompts_see_parameters_and_the_shared_context(stack: Stack) -> None:
    run = run_of(sentiment("positive"), SUMMARY, REPORT, input_={"input_text": "a fine day"})

    assert set(statuses(run).values()) == {"completed"}
    assert prompts(stack)[-2].startswith("Summarise a fine day, which is positive: positive.")
    assert prompts(stack)[-1] == "Report It is good. of It is good."
    assert run.context == {
        "input_text": "a fine day",
        "content_sentiment": "positive",
        "content_summary": "It is good.",
    }


def test_a_false_condition_skips_its_agent_and_its_dependents_run(stack: Stack) -> None:
    run = run_of(sentiment("negative"), SUMMARY, REPORT, input_={"input_text": "rain"})

    assert run.status == "completed"
    assert statuses(run)["text_summary"] == "skipped"
    assert prompts(stack)[-1] == "Report null of null"
    assert len(prompts(stack)) == 2
    skipped = next(event for event in run.events() if event.type == "agent_skipped")
    assert skipped.data["agent"] == "text_summary"
    assert "content_sentiment == positive" in skipped.data["error"]
    assert run.outputs.keys() == {"sentiment_analysis", "report"}
    assert stack.sql("SELECT count(*) AS n FROM cost_entries WHERE run_id = %s", run.id) == [
        {"n": 2}
    ]


def test_a_condition_that_cannot_be_evaluated_fails_its_agent_before_any_call(
    stack: Stack,
) -> None:
    first = agent("first", "say " + reply('{"score": 1}'))
    second = agent("second", "go", "first", condition="first.scores > 0")

    run = run_of(first, second, agent("third", "go"))

    result = run.results["second"]
    assert result.status.value == "failed"
    assert result.error is not None
    assert 'there is no key "scores"' in result.error
    assert result.cost == 0
    assert run.status == "partially_completed"


def test_an_agent_that_runs_again_replaces_what_it_gave_to_the_context(stack: Stack) -> None:
    place = {"function": "tests.support.agent_functions:where"}
    writer = Agent(name="writer", kind="function", config=place, output_mapping={"key": "made_by"})
    kept = agent("kept", condition="input.careful")
    reader = agent("reader", "Made by {made_by}", "writer", condition="made_by != nobody")
    first = run_of(writer, kept, reader, input_={"careful": False})

    again = first.rerun("writer")
    again.wait(timeout=WAIT_S)

    assert first.results["writer"].agent_id in first.context["made_by"]
    assert again.results["writer"].agent_id in again.context["made_by"]
    assert prompts(stack)[-1] == f"Made by {again.context['made_by']}"
    assert statuses(again) == {"writer": "completed", "kept": "skipped", "reader": "completed"}


def test_what_is_retried_gives_the_context_what_its_last_attempt_made(stack: Stack) -> None:
    at_once = RetryPolicy(strategy=RetryStrategy.IMMEDIATE)
    counted = Agent(
        name="counted",
        kind="function",
        config={"function": "tests.support.agent_functions:fail_twice"},
        retry_policy=at_once,
        output_mapping={"$": "attempt"},
    )
    failing = agent(
        "failing",
        "Attempt {attempt} [[sim:status=500,times=1]]",
        "counted",
        retry_policy=at_once,
        condition="attempt == 3",
    )

    run = run_of(counted, failing)

    assert set(statuses(run).values()) == {"completed"}
    assert run.context == {"attempt": 3}
    assert run.results["failing"].retry_count == 1


def test_the_later_of_two_levels_gives_a_key_its_value(stack: Stack) -> None:
    draft = agent("draft", "Draft [[sim:reply=first]]", output_mapping={"$": "text"})
    review = agent(
        "review",
        "Review {text} [[sim:reply=second]]",
        "draft",
        output_mapping={"$": "text"},
        condition="input.careful",
    )
    end = agent("end", "Print {text}", "review")

    careful = run_of(draft, review, end, input_={"careful": True})
    seen = prompts(stack)[-1]
    careless = run_of(draft, review, end, input_={"careful": False})

    assert seen == "Print second"
    assert prompts(stack)[-1] == "Print first"
    assert (careful.context["text"], careless.context["text"]) == ("second", "first")


def test_an_output_without_a_mapped_part_fails_its_agent(stack: Stack) -> None:
    run = run_of(agent("first", "say " + reply('{"mood": 1}'), output_mapping={"sentiment": "x"}))

    result = run.results["first"]
    assert result.metadata["error_class"] == "OutputInvalid"
    assert result.error == (
        "agent 'first': its output has no 'sentiment', which output_mapping gives to 'x': "
        "'$' has no key 'sentiment'; its keys are 'mood'"
    )


@pytest.mark.parametrize("model", MODELS)
def test_an_output_schema_makes_the_output_a_json_value(stack: Stack, model: str) -> None:
    extract = agent(
        "extract", "Read: total: 119.50", llm_config={"model": model}, output_schema=Invoice
    )
    after = agent(
        "after",
        "First line {extract.lines[0].name}",
        "extract",
        condition="extract.total > 100 && size(extract.lines) == 1",
    )

    run = run_of(extract, after)

    assert statuses(run) == {"extract": "completed", "after": "completed"}
    invoice = Invoice.model_validate(run.outputs["extract"])
    assert invoice.total == 119.5
    assert prompts(stack)[-1] == f"First line {invoice.lines[0].name}"


@pytest.mark.parametrize(
    ("model", "api"),
    [
        *((model, None) for model in (*MODELS, "gpt-3.5-turbo")),
        ("gpt-4o-mini", "responses"),
        ("gpt-6.1-terra", "responses"),
        ("gpt-3.5-turbo", "responses"),
    ],
)
def test_an_answer_that_does_not_fit_is_repaired_in_a_call_of_its_own(
    stack: Stack, model: str, api: str | None
) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    extract = agent(
        "extract",
        f"Sum up [[sim:invalid_turns=1]]{ASKED.get(model, '')}",
        llm_config={"model": model, "api": api},
        output_schema=schema,
    )

    run = run_of(extract)

    assert isinstance(run.outputs["extract"]["total"], float | int)
    assert stack.sql(
        "SELECT count(*) AS n, count(DISTINCT call_id) AS calls FROM cost_entries"
        " WHERE run_id = %s AND cost_usd > 0",
        run.id,
    ) == [{"n": 2, "calls": 2}]
    assert "output.total" in prompts(stack)[-1]


# For a model without a JSON mode the prompt has the schema.
ASKED = {"gpt-3.5-turbo": " as JSON with the key total"}


def test_an_answer_that_stays_unfit_fails_with_the_path_and_is_not_tried_again(
    stack: Stack,
) -> None:
    extract = agent("extract", "Read [[sim:invalid_turns=2]]", output_schema=Invoice)

    run = run_of(extract)

    result = run.results["extract"]
    assert result.metadata["error_class"] == "OutputInvalid"
    assert result.retry_count == 0
    assert result.error is not None
    assert "output.vendor: " in result.error
    assert 'is not of type "string"' in result.error
    assert len(stack.simulator.ledger()) == 2


def test_what_cannot_be_used_is_refused_when_a_run_is_enqueued(stack: Stack) -> None:
    with pytest.raises(WorkflowError, match=r"condition is not a CEL expression: .*character 10"):
        run_of(agent("a", condition="input.x +* 1"))
    with pytest.raises(
        WorkflowError, match=r"agent 'a': output_schema is not a JSON Schema at type"
    ):
        run_of(agent("a", output_schema={"type": "txt"}))
    with pytest.raises(WorkflowError, match="outside the schema"):
        run_of(agent("a", output_schema={"$ref": "http://127.0.0.1:9/x"}))


def test_hostile_placeholders_and_outputs_stay_harmless(stack: Stack) -> None:
    first = agent("first", "say " + reply("{x.__class__} {input.__init__.__globals__}"))
    second = agent("second", "Repeat {first}", "first")

    run = run_of(first, second)

    assert statuses(run) == {"first": "completed", "second": "completed"}
    assert prompts(stack)[-1] == "Repeat {x.__class__} {input.__init__.__globals__}"
    with pytest.raises(WorkflowError, match="__class__"):
        run_of(agent("a", "{x.__class__}"), input_={"x": "text"})


@pytest.mark.parametrize(
    ("changed", "summary"), [({}, "completed"), ({"input_text": "Awful. I hate it."}, "skipped")]
)
def test_the_content_pipeline_summarises_positive_texts_only(
    stack: Stack, changed: dict[str, str], summary: str
) -> None:
    file = load(EXAMPLES / "content_analysis.yaml")

    run = enqueue(file.workflow, input={**file.input, **changed})

    assert run.wait(timeout=WAIT_S) == "completed"
    assert statuses(run) == {"sentiment_analysis": "completed", "text_summary": summary}
    assert ("content_summary" in run.context) is (summary == "completed")


def test_the_data_pipeline_describes_the_valid_records(stack: Stack) -> None:
    file = load(EXAMPLES / "data_processing.json")

    run = enqueue(file.workflow, input=file.input)

    assert run.wait(timeout=WAIT_S) == "completed"
    assert run.context["validated_data"] == run.outputs["data_validation"]["clean_data"]
    assert run.context["analysis_results"] == run.outputs["statistical_analysis"]["stats"]
    assert "price" in str(run.context["analysis_results"])


def test_a_condition_with_a_macro_is_evaluated_apart_and_others_go_on(stack: Stack) -> None:
    lines = {"lines": [{"amount": amount} for amount in range(100)]}
    run = run_of(
        agent("all", condition="input.lines.all(line, line.amount >= 0)"),
        agent("any", condition="input.lines.exists(line, line.amount > 99)"),
        agent("endless", condition="[[1]]" + ".map(y, y + y)" * 25 + " == []"),
        agent("none"),
        input_=lines,
    )

    assert statuses(run) == {
        "all": "completed",
        "any": "skipped",
        "endless": "failed",
        "none": "completed",
    }
