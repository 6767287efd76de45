import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.simulator.anthropic_wire import AnthropicWire
from app.simulator.chat import ChatRequest, Refusal
from app.simulator.markers import Marker, active, markers_in
from app.simulator.openai_wire import OpenAIWire, duration
from app.simulator.replies import reply_to

INVOICE = """Extract the data of this invoice.
Vendor: Acme Supplies Ltd
Invoice number: INV-2025-001
Total: EUR 1,240.50
Due date: 2025-03-01
Respond with JSON with keys vendor, invoice_number, total, currency, due_date and is_valid."""

LOOKUP = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string"},
        "amount": {"type": "number", "maximum": 1000},
        "kind": {"enum": ["goods", "services"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "required": ["vendor", "amount", "kind", "lines"],
    "$defs": {"line": {"type": "object", "properties": {"quantity": {"type": "integer"}}}},
}


def asked(prompt: str, **fields: Any) -> ChatRequest:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], **fields}
    return OpenAIWire().parse(body)


def with_tools(*names: str) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": name, "parameters": LOOKUP}} for name in names
    ]


def test_an_invoice_is_read_into_the_keys_that_the_prompt_asks_for() -> None:
    reply = reply_to(asked(INVOICE))

    assert json.loads(reply.text) == {
        "vendor": "Acme Supplies Ltd",
        "invoice_number": "INV-2025-001",
        "total": 1240.5,
        "currency": "EUR",
        "due_date": "2025-03-01",
        "is_valid": True,
    }


@pytest.mark.parametrize(
    ("prompt", "keys"),
    [
        ("Judge it. respond with json", ["status", "summary", "confidence"]),
        ('Return only valid JSON: {"approved": true, "reason": "..."}', ["approved", "reason"]),
        ("Give JSON with the fields `score` (0-100), and `skills`", ["score", "skills"]),
        ("Screen her. JSON with keys: score, recommendation", ["score", "recommendation"]),
    ],
)
def test_json_is_answered_with_the_keys_of_the_prompt(prompt: str, keys: list[str]) -> None:
    assert list(json.loads(reply_to(asked(prompt)).text)) == keys


@pytest.mark.parametrize(
    ("mail", "kind"),
    [
        ("Please refund the $24.", "refund"),
        ("Where is my parcel? The delivery is late.", "delivery"),
        ("Hello!", "refund"),  # the first option
        ("Kind: other. I ask for a refund.", "refund"),
        ("I ask for a refund.\nKind: other", "other"),  # stated under the key's name
    ],
)
def test_a_choice_is_the_option_that_the_prompt_states_or_mentions_most(
    mail: str, kind: str
) -> None:
    schema = {"properties": {"kind": {"enum": ["refund", "delivery", "other"]}}}
    format_ = {"type": "json_schema", "json_schema": {"name": "kind", "schema": schema}}
    prompt = f"Sort it: refund, delivery or other; see refund_usd.\n{mail}"

    reply = reply_to(asked(prompt, response_format=format_))

    assert json.loads(reply.text) == {"kind": kind}


def test_a_schema_decides_over_the_prompt() -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "lookup", "schema": LOOKUP}}

    reply = json.loads(reply_to(asked(INVOICE, response_format=format_)).text)

    assert reply["vendor"] == "Acme Supplies Ltd"
    assert reply["kind"] == "goods"
    assert isinstance(reply["lines"][0]["quantity"], int)


@pytest.mark.parametrize(
    "prompt",
    [
        "Screen the resume of Jane Miller: 7 years of Python, Celery and Postgres.",
        "Analyse stock of SKU AB-100: 420 units, weekly demand 60, supplier Nordic Parts.",
        "Check the travel policy for compliance with the expense rules.",
        "Write a report about quarterly revenue growth in retail.",
        "Tell me about lighthouses.",
    ],
)
def test_free_text_is_a_few_sentences_with_words_of_the_prompt(prompt: str) -> None:
    text = reply_to(asked(prompt)).text

    assert 2 <= text.count(". ") + 1 <= 4
    assert set(text.lower().replace(",", "").replace(".", "").split()) & {
        word.lower().strip(".,:") for word in prompt.split() if len(word) > 4
    }


@pytest.mark.parametrize(
    ("opinion", "expected"),
    [("I love this wonderful product", "positive"), ("What an awful purchase", "negative")],
)
def test_a_choice_is_answered_with_one_word(opinion: str, expected: str) -> None:
    prompt = f"Sentiment of: {opinion}. Answer with exactly one of: positive, negative, neutral."

    assert reply_to(asked(prompt)).text == expected


def test_the_same_request_gets_the_same_reply_and_another_one_differs() -> None:
    replies = [reply_to(asked(f"Review case {case}")) for case in (1, 1, 2)]

    assert replies[0] == replies[1]
    assert replies[0].text != replies[2].text


def test_offered_tools_are_called_with_arguments_that_fit_their_schema() -> None:
    reply = reply_to(asked('Look up vendor "Acme Supplies", 40 pieces', tools=with_tools("lookup")))

    (call,) = reply.tool_calls
    arguments = json.loads(call.arguments)
    assert call.name == "lookup"
    assert arguments["vendor"] == "Acme Supplies"
    assert arguments["amount"] == 40
    assert arguments["kind"] == "goods"
    assert reply.text == ""


def test_tools_that_the_prompt_names_are_called_instead_of_the_first() -> None:
    request = asked("Use check_stock and then place_order", tools=with_tools("a", "check_stock"))

    assert [call.name for call in reply_to(request).tool_calls] == ["check_stock"]


def test_a_chosen_tool_is_called_and_none_means_none() -> None:
    chosen = {"type": "function", "function": {"name": "second"}}
    tools = with_tools("first", "second")

    forced = reply_to(asked("Go", tools=tools, tool_choice=chosen))
    refused = reply_to(asked("Go", tools=tools, tool_choice="none"))

    assert [call.name for call in forced.tool_calls] == ["second"]
    assert refused.tool_calls == ()


def test_after_the_results_the_reply_quotes_them() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
    body = {
        "model": "gpt-4o",
        "tools": with_tools("lookup"),
        "messages": [
            {"role": "user", "content": "What does Acme owe?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "EUR 99.10 open"},
        ],
    }

    reply = reply_to(OpenAIWire().parse(body))
    again = reply_to(OpenAIWire().parse(body), marker=Marker(tool_turns=2))

    assert "EUR 99.10 open" in reply.text
    assert reply.tool_calls == ()
    assert len(again.tool_calls) == 1


def test_tool_results_must_answer_the_calls() -> None:
    messages = [
        {"role": "user", "content": "Go"},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]

    with pytest.raises(Refusal, match="call_1"):
        OpenAIWire().parse({"model": "gpt-4o", "messages": messages})


def test_a_fixed_size_is_exact_and_max_tokens_still_cuts() -> None:
    sized = reply_to(asked("Tell me about ünïcödé lighthouses"), output_tokens=300)
    cut = reply_to(asked("Tell me about lighthouses", max_tokens=7), output_tokens=300)

    assert (sized.output_tokens, sized.cut) == (300, False)
    assert (cut.output_tokens, cut.cut) == (7, True)


def test_a_signature_begins_a_text_within_its_size_and_leaves_json_alone() -> None:
    text = reply_to(asked("Tell me about lighthouses"), output_tokens=20, signature="req_1")
    document = reply_to(asked("Respond with JSON"), signature="req_1")

    assert text.text.startswith("req_1 ")
    assert text.output_tokens == 20
    assert "req_1" not in document.text


def test_json_of_a_fixed_size_stays_json() -> None:
    reply = reply_to(asked("Respond with JSON"), output_tokens=200)

    assert reply.output_tokens == 200
    assert json.loads(reply.text)


def test_reasoning_counts_as_output_within_max_tokens() -> None:
    (marker,) = markers_in("[[sim:reasoning_tokens=50]]")

    reply = reply_to(asked("Tell me about lighthouses", max_tokens=60), marker=marker)

    assert (reply.reasoning_tokens, reply.output_tokens, reply.cut) == (50, 60, True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = ("messages", "tools", "tool_choice", "system", "response_format", "stream_options")


@given(st.sampled_from([OpenAIWire(), AnthropicWire()]), st.sampled_from(FIELDS), JSON)
def test_a_malformed_body_is_refused_and_never_an_accident(
    wire: OpenAIWire | AnthropicWire, field: str, value: object
) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}

    with contextlib.suppress(Refusal):
        assert wire.parse(body | {field: value}).model == "m"


@given(st.text(), st.text(), st.integers(min_value=1, max_value=50), st.booleans())
def test_tokens_never_exceed_the_bytes_sent_nor_max_tokens(
    system: str, prompt: str, max_tokens: int, tooled: bool
) -> None:
    body = {
        "model": "claude-sonnet-5",
        "max_tokens": max_tokens,
        "system": system,
        "messages": [{"role": "user", "content": prompt}],
        "tools": [{"name": "lookup", "input_schema": LOOKUP}] if tooled else [],
    }
    request = AnthropicWire().parse(body)
    texts = [system, prompt, json.dumps(body["tools"]) if tooled else ""]

    reply = reply_to(request, marker=active(markers_in(""), 1))

    assert request.input_tokens <= sum(len(text.encode()) for text in texts)
    assert reply.output_tokens <= max_tokens


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.12, "120ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (7.66, "7.66s"),
        (360, "6m0s"),
        (3661.5, "1h1m1.5s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("wire", [OpenAIWire(), AnthropicWire()])
@pytest.mark.parametrize("output_tokens", [None, 25])
def test_a_cut_reply_goes_on_where_it_stopped(
    wire: OpenAIWire | AnthropicWire, output_tokens: int | None
) -> None:
    messages = [{"role": "user", "content": "Tell me about ünïcödé lighthouses"}]
    body = {"model": "m", "max_tokens": 1000, "messages": messages}
    whole = reply_to(wire.parse(body), output_tokens=output_tokens).text
    parts: list[str] = []
    cut = True

    while cut:
        reply = reply_to(wire.parse({**body, "max_tokens": 7}), output_tokens=output_tokens)
        parts.append(reply.text)
        cut = reply.cut
        messages.append({"role": "assistant", "content": reply.text})
        messages.append({"role": "user", "content": "Continue, please."})

    assert "".join(parts) == whole
    assert len(parts) > 3


@pytest.mark.parametrize("wire", [OpenAIWire(), AnthropicWire()])
def test_cut_calls_lose_the_end_of_the_last_call(wire: OpenAIWire | AnthropicWire) -> None:
    tools = with_tools("first", "second")
    prompt = "Use first and second. [[sim:cut_calls]]"
    (marker,) = markers_in(prompt)

    reply = reply_to(asked(prompt, tools=tools), marker=marker)

    first, second = reply.tool_calls
    assert reply.cut
    assert json.loads(first.arguments)
    with pytest.raises(json.JSONDecodeError):
        json.loads(second.arguments)
