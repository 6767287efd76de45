"""The attachments of an agent: how they are written, checked, resolved and stored."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import Agent, Workflow
from app.domain.attachments import Source, sources_of
from app.domain.input_validation import validate_input
from app.errors import AttachmentRefused, MissingInput, WorkflowError


def agent(*entries: Any, **fields: Any) -> Agent:
    config = {"model": "gpt-4o-mini"}
    return Agent(
        name="reader", prompt_template="Sum?", llm_config=config, attachments=entries, **fields
    )


def workflow(*agents: Agent) -> Workflow:
    return Workflow(name="invoices", agents=list(agents))


@pytest.mark.parametrize(
    ("entry", "value", "source"),
    [
        ("{file}", "a/b.pdf", ("path", "a/b.pdf", None)),
        ("in/{file}.pdf", "7", ("path", "in/7.pdf", None)),
        ("{file}", "https://example.org/a.png", ("url", "https://example.org/a.png", None)),
        ("{file}", "HTTP://example.org", ("url", "HTTP://example.org", None)),
        ("{file}", "data:image/png;base64,iVBO", ("base64", "iVBO", None)),
        ({"base64": "{file}"}, "iVBO", ("base64", "iVBO", None)),
        ({"base64": "{file}"}, "data:;base64,iVBO", ("base64", "iVBO", None)),
        ({"path": "{file}", "detail": "low"}, "https://a", ("path", "https://a", "low")),
        ({"url": "https://a/{file}"}, "b", ("url", "https://a/b", None)),
    ],
)
def test_a_value_says_where_the_file_is(
    entry: Any, value: str, source: tuple[str, str, str | None]
) -> None:
    (found,) = sources_of(agent(entry), {"file": value})

    assert (found.place, found.value, found.detail) == source
    assert found.entry == "attachments[0]"


def test_a_list_gives_an_attachment_for_each_element_and_null_gives_none() -> None:
    entries = agent("{files}", "{none}", "{gone.scan}", "x.png")

    found = sources_of(entries, {"files": ["a", "b"], "none": None, "gone": None}, absent={"gone"})

    assert [(each.entry, each.value) for each in found] == [
        ("attachments[0]", "a"),
        ("attachments[0]", "b"),
        ("attachments[3]", "x.png"),
    ]


@pytest.mark.parametrize("value", [5, {"path": "a"}, ["a", 5], "", " ", [""], ["a"] * 101, True])
def test_a_value_that_is_no_file_is_refused(value: Any) -> None:
    with pytest.raises(AttachmentRefused, match=r"attachments\[0\]: the value of \{file\}"):
        sources_of(agent("{file}"), {"file": value})
    with pytest.raises(WorkflowError, match=r"attachments\[0\]: the value of \{file\}") as refused:
        validate_input(workflow(agent("{file}")), {"file": value})
    assert refused.value.field == "agents[0].attachments[0]"


def test_a_missing_value_is_refused() -> None:
    with pytest.raises(MissingInput, match=r"\{file\}"):
        sources_of(agent("{file}"), {})
    with pytest.raises(WorkflowError, match=r"\{file\} has no value.*did you mean 'files'"):
        validate_input(workflow(agent("{file}")), {"files": "a"})


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (("",), "give a string"),
        ((5,), "give a string"),
        (({},), "exactly one of the keys"),
        (({"path": "a", "url": "b"},), "exactly one of the keys"),
        (({"pth": "a"},), r"did you mean 'path'\?"),
        (({"path": "a", "detail": "ultra"},), "give one of 'low', 'high'|give one of low, high"),
        (({"path": 5},), "give a string"),
        (("{a.}",), "not a placeholder"),
        (("{a}",) * 101, "the limit is 100"),
    ],
)
def test_a_wrong_entry_is_refused_with_a_remedy(entries: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(WorkflowError, match=problem) as refused:
        workflow(agent(*entries))

    assert (refused.value.field or "").startswith("agents[0].attachments")


def test_a_single_string_is_no_list() -> None:
    with pytest.raises(WorkflowError, match=r"give a list, such as \['\{invoice\}'\]"):
        workflow(Agent(name="a", prompt_template="x", llm_config={"model": "gpt-4o"},
                       attachments="{invoice}"))  # fmt: skip


def test_only_agents_with_a_prompt_have_attachments() -> None:
    with pytest.raises(WorkflowError, match="attachments does not apply"):
        workflow(Agent(name="f", kind="function", config={"function": "x"}, attachments=["a"]))


def test_placeholders_of_attachments_are_dependencies_like_those_of_prompts() -> None:
    config = {"model": "gpt-4o-mini"}
    finder = Agent(name="finder", prompt_template="Where?", llm_config=config)
    reader = agent("{finder.path}", dependencies=["finder"])

    assert workflow(finder, reader).data_flow.reads(reader) == {"finder"}
    with pytest.raises(WorkflowError, match=r"attachments\[0\] uses \{finder\}.*add 'finder'"):
        workflow(finder, agent("{finder.path}"))
    with pytest.raises(WorkflowError, match="its own output: remove the placeholder"):
        workflow(agent("{reader}"))


def test_attachments_read_mapped_values_and_keys_of_the_context() -> None:
    config = {"model": "gpt-4o-mini"}
    finder = Agent(
        name="finder", prompt_template="W?", llm_config=config, output_mapping={"$": "scan"}
    )
    reader = agent(
        "{scan}", "{mine}", dependencies=["finder"], input_mapping={"mine": "finder.other"}
    )
    flow = workflow(finder, reader).data_flow
    view = flow.view(reader, {}, {"finder": '{"other": "b.png"}'})

    found = sources_of(reader, view.values, absent=view.absent)

    assert [each.value for each in found] == ['{"other": "b.png"}', "b.png"]


def test_items_of_a_list_have_attachments_of_their_own() -> None:
    reader = agent("{item.scan}", for_each="input.invoices")
    flow = workflow(reader).data_flow

    view = flow.view(reader, {"invoices": []}, {}, {"item": {"scan": "7.pdf"}, "index": 0})

    assert [each.value for each in sources_of(reader, view.values)] == ["7.pdf"]


@given(st.lists(st.sampled_from(["{a}", {"path": "{a}"}, {"url": "u", "detail": "low"}])))
def test_attachments_are_stored_and_read_back(entries: list[Any]) -> None:
    stored = agent(*entries).definition()

    assert list(Agent.from_definition(stored).attachments) == entries
    assert ("attachments" in stored) is bool(entries)


def test_a_data_url_without_base64_is_refused() -> None:
    with pytest.raises(AttachmentRefused, match="not in base64"):
        sources_of(agent("{file}"), {"file": "data:text/plain,hello"})


def test_a_source_is_a_value() -> None:
    assert Source(entry="e", place="path", value="a") == Source(entry="e", place="path", value="a")
