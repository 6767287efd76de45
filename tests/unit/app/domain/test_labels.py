import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.labels import MAX_LABELS, MAX_VALUE_CHARS, check_labels, merged_labels
from app.domain.plain_text import find_name_problem
from app.domain.run_filter import RunFilter
from app.domain.run_options import RunOptions
from app.domain.workflow import Workflow
from app.errors import WorkflowError
from tests.support.database_cluster import agent

KEYS = st.text(string.ascii_lowercase + string.digits + "_.-", min_size=1, max_size=63)
VALUES = st.text(min_size=1, max_size=MAX_VALUE_CHARS).filter(
    lambda text: find_name_problem(text) is None
)
LABELS = st.dictionaries(KEYS, VALUES, max_size=MAX_LABELS)
WRONG = [
    (["team"], "are ['team']: give texts by key"),
    ({str(n): "a" for n in range(17)}, "are 17: give at most 16"),
    ({"Team": "a"}, "have the key 'Team', which is not 1 to 63 characters"),
    ({"": "a"}, "have the key '', which is not"),
    ({"a" * 64: "a"}, "is not 1 to 63 characters"),
    ({"a\n": "a"}, "is not 1 to 63 characters"),
    ({1: "a"}, "have the key 1, which is not"),
    ({"team": ""}, "have a value of team that is '': give a text of 1 to 200 characters"),
    ({"team": 7}, "have a value of team that is 7: give a text"),
    ({"team": "a" * 201}, "give a text of 1 to 200 characters"),
    ({"team": "a\u200b"}, "have a value of team that contains the character \\u200b"),
    ({"team": " a"}, "has blanks around it"),
]


@given(LABELS, LABELS)
def test_the_labels_of_a_run_override_the_labels_of_its_workflow(
    defaults: dict[str, str], own: dict[str, str]
) -> None:
    if len({*defaults, *own}) > MAX_LABELS:
        with pytest.raises(WorkflowError, match="give at most 16"):
            merged_labels(defaults, own)
        return

    merged = merged_labels(defaults, own)

    assert merged.items() >= own.items()
    assert {key: merged[key] for key in merged.keys() - own.keys()} == {
        key: value for key, value in defaults.items() if key not in own
    }


@pytest.mark.parametrize(("labels", "message"), WRONG)
def test_labels_that_are_not_plain_texts_are_refused(labels: object, message: str) -> None:
    for build in (
        check_labels,
        lambda given: RunOptions(labels=given),
        lambda given: Workflow(name="w", agents=[agent("a")], labels=given),
    ):
        with pytest.raises(WorkflowError) as refused:
            build(labels)

        assert message in str(refused.value)
        assert (refused.value.field or "").startswith("labels")


def test_labels_belong_to_the_stored_workflow_and_to_no_prompt() -> None:
    plain = Workflow(name="w", agents=[agent("a")])
    labelled = Workflow(name="w", agents=[agent("a")], labels={"team": "claims"})

    assert "labels" not in plain.definition()  # workflows of earlier versions keep their hash
    assert Workflow.from_definition(labelled.definition()).labels == {"team": "claims"}
    assert labelled.content_hash() != plain.content_hash()
    assert labelled.agents == plain.agents


def test_a_filter_has_values_and_keys() -> None:
    only = RunFilter(labels={"team": "claims", "batch": None})

    assert (only.exact_labels, only.label_keys) == ({"team": "claims"}, ["batch"])


@pytest.mark.parametrize("labels", [{"Team": None}, {"team": ""}, {"team": "a\u200b"}])
def test_a_filter_that_no_run_can_fulfil_is_refused(labels: dict[str, str | None]) -> None:
    with pytest.raises(WorkflowError, match="no label"):
        RunFilter(labels=labels)
