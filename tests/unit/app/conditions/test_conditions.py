from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.conditions.evaluator import ConditionEvaluator
from app.conditions.program import compiled
from app.domain.condition import Condition, read_condition
from app.errors import ConditionFailed, WorkflowError
from app.sandbox.processes import Sandbox
from app.sandbox.turns import Turn

pytestmark = pytest.mark.anyio

AGENTS = ("screen", "text-processor", "report")
KEYS = ("content_sentiment", "total")


def condition(text: str) -> Condition:
    found = read_condition(text, agents=AGENTS, keys=KEYS)
    compiled(found)
    return found


async def holds(text: str, **values: object) -> bool:
    run_input = values.pop("input", {})
    assert isinstance(run_input, dict)
    with closing(Sandbox()) as sandbox:
        return await ConditionEvaluator(sandbox).holds(
            condition(text), run_input=run_input, values=values, turn=Turn(None, "run")
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("content_sentiment == positive", True),
        ("positive == content_sentiment", True),
        ("content_sentiment != positive", False),
        ("'positive' == content_sentiment", True),
        ("positive == (true ? content_sentiment : '')", True),
        ("screen.tags[0] == a && a == screen.tags[0]", True),
        ("size(screen.tags) == two || string(total) == none || true", True),
        ("screen.tags.exists(tag, b == tag)", True),
        ("content_sentiment == 'positive' && total > 100", True),
        ("(content_sentiment == negative) || total == 119.0", True),
        ("input.amount >= 10 ? total > 0 : false", True),
        ("screen.score > 0.5", True),
        ("screen.tags[1] == 'b'", True),
        ("report.lines[0].total == 7", True),
        ("has(screen.nothing) || !has(input.nothing)", True),
        ("'a' in screen.tags", True),
        ("screen.tags.exists(tag, tag == 'b') && size(screen.tags) == 2", True),
        ("screen.tags.all(x, screen.tags.exists(y, x == y))", True),
        ("screen.tags.all(tag, tag == content_sentiment)", False),
        ("content_sentiment.startsWith('pos')", True),
        ("content_sentiment.matches('^(p+)+ositive$')", True),
        ("type(total) == int && total != null", True),
        ("text_processor == null", True),
        ("// a remark\n  total == 119 // another", True),
    ],
)
async def test_conditions_see_the_input_the_outputs_and_the_context(
    text: str, expected: bool
) -> None:
    values = {
        "screen": {"score": 0.7, "tags": ["a", "b"]},
        "report": '```json\n{"lines": [{"total": 7}]}\n```',
        "text-processor": None,
        "content_sentiment": "positive",
        "total": 119,
    }

    assert await holds(text, input={"amount": 12}, **values) is expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "give an expression"),
        ("total >", "character 8"),
        ("total = 3", "'=' is not allowed in an expression (character 7)"),
        ("total == 3 and true", "there is no 'and'"),
        ("content_sentimnt == positive", "there is no 'content_sentimnt'"),
        ("content_sentimnt == positive", "did you mean 'content_sentiment'?"),
        ("total > 1 &&\n scren.score > 1", "character 2 of line 2"),
        ("scren.score == high", "did you mean 'screen'?"),
        ("total.map(x, x).all(y, x)", "there is no 'x'"),
        ("for == total", "reserved word"),
        ("total + 1 > other", "there is no 'other'"),
        ("'a' + 'b'", "not true or false"),
        ("1 == 'a'", "no matching overload"),
        ("open('/etc/passwd') == ''", "undeclared reference to 'open'"),
        ("screen.__class__.mro() == 1", "undeclared reference to 'mro'"),
        ("(total == 1", "this bracket is not closed: add ')' (character 1)"),
        ("total == 1)", "')' closes no bracket (character 11)"),
        ("total == 'a", "is not allowed"),
        ("x" * 5000, "the limit is 4,000"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused_with_its_place(
    text: str, problem: str
) -> None:
    with pytest.raises(WorkflowError) as caught:
        condition(text)

    assert problem in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("content_sentimen == 'positive'", "did you mean 'content_sentiment'?"),
        ("total > 1 && 'positive' != content_sentimen", "did you mean 'content_sentiment'?"),
        ("true == tru", "there is no 'tru'; there is 'input', .*; did you mean 'true'?"),
        ("tt == 'y'", r"there is no 'tt'.* \(character 1\)"),
        ("-1 == tt || total == 1", "there is no 'tt'"),
        ("total == 1 || ('y') == tt", "there is no 'tt'"),
        ("[1, 2] == tt", "there is no 'tt'"),
        ("size('abc') == three", "there is no 'three'"),
        ("totl == 1 && total == 1", "did you mean 'total'?"),
        ("screen.tags.all(tag, tga == 'b')", "there is no 'tga'"),
        ("tt == 'a' in screen.tags", "there is no 'tt'"),
    ],
)
def test_a_word_that_is_compared_with_a_literal_is_a_mistyped_name(text: str, problem: str) -> None:
    with pytest.raises(WorkflowError, match=problem.replace("?", r"\?")):
        condition(text)


ZONED = "timestamp('2020-01-01T00:00:00Z').{}({})"


@pytest.mark.parametrize("method", ["getHours", "getFullYear", "getDate"])
@pytest.mark.parametrize(
    "zone",
    [
        *(
            "'file:/dev/stdin'",
            "'/etc/localtime'",
            "'../localtime'",
            "r'file:/dev/tty'",
            "'a/../b'",
        ),
        *('"""file:/dev/tty"""', r"'\x66ile:/dev/tty'", "input.zone", "content_sentiment"),
        *("('UTC')", "'UTC' + ''", "'\N{KELVIN SIGN}'", r"'A\n'", "true ? 'UTC' : ''", "''"),
    ],
)
def test_a_time_zone_never_names_a_file(method: str, zone: str) -> None:
    with pytest.raises(WorkflowError, match="a time zone is"):
        condition(f"{ZONED.format(method, zone)} == 1")


@pytest.mark.parametrize(
    ("zone", "hours"),
    [("", 0), ("'Asia/Tokyo'", 9), ('"+09:00"', 9), ("'09:00'", 9), ("'UTC'", 0)],
)
async def test_a_time_has_the_hours_of_its_zone(zone: str, hours: int) -> None:
    assert await holds(f"{ZONED.format('getHours', zone)} == {hours}")


def test_a_refusal_does_not_offer_the_agent_its_own_output() -> None:
    with pytest.raises(WorkflowError, match=r"there is 'input', 'screen', 'total' \("):
        read_condition("x > 1", agents=("screen", "my-own"), keys=["total"], own="my-own")


@pytest.mark.parametrize("opening", ["(", "[", "{", "!(", "total.map(x, ", "has("])
def test_ten_thousand_nested_brackets_are_refused(opening: str) -> None:
    for count in (100, 1000, 10_000):
        with pytest.raises(WorkflowError, match=r"limit is 4,000|nested more than 24 deep"):
            condition(opening * count)


@pytest.mark.parametrize(
    "text", ["!" * 3990 + "true", "-" * 3900 + "1 == 1", "total" + ".a" * 1900, "1+" * 1900 + "1"]
)
def test_long_chains_are_compiled_or_refused_but_never_harm_the_process(text: str) -> None:
    try:
        condition(text)
    except WorkflowError as error:
        assert "depth" in str(error) or "limit" in str(error)  # noqa: PT017 either is right


@given(st.text(alphabet="()[]{}'\"\\rb.,!=<>&|?: \ntotalinputscreen0123456789`/+-", max_size=60))
def test_whatever_is_written_is_compiled_or_refused(text: str) -> None:
    try:
        condition(text)
    except WorkflowError as error:
        assert "\n" not in str(error)  # noqa: PT017 every refusal is one line


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("screen.missing == 1", 'there is no key "missing"'),
        ("screen.score", "neither true nor false"),
        ("total / 0 == 1", "divide by zero"),
        ("total > 'a'", "No matching overloads"),
        ("report.lines == 1", "cannot be evaluated"),
        ("text_processor > 1", "No matching overloads"),
    ],
)
async def test_a_condition_that_fails_says_why(text: str, problem: str) -> None:
    screen = {"score": 0.5}

    with pytest.raises(ConditionFailed) as caught:
        await holds(text, screen=screen, total=1, report="no JSON", **{"text-processor": 10**30})

    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "text", ["report.category == 'refund'", "report.lines.exists(line, line == 1)"]
)
async def test_a_condition_on_a_part_of_null_says_what_is_null(text: str) -> None:
    with pytest.raises(ConditionFailed, match="'report' is null: test report != null first"):
        await holds(text, report=None)

    assert not await holds(f"report != null && {text}", report=None)


@pytest.mark.parametrize(
    "text",
    [
        "[[1]]" + ".map(y, y + y)" * 25 + " == []",
        "screen.map(a, screen.map(b, screen.map(c, screen))) == []",
        "screen.all(x, screen == screen)",
        "screen.all(x, x >= 0)",
    ],
)
async def test_a_condition_that_would_never_end_is_stopped(text: str) -> None:
    with pytest.raises(ConditionFailed):
        await holds(text, screen=list(range(20_000)))


async def test_large_values_are_evaluated_apart() -> None:
    assert await holds("screen == screen && size(screen) == 100000", screen=[0] * 100_000)


LARGE = (1 << 70) + 1


# The second form has a loop, so that a separate process evaluates it.
@pytest.mark.parametrize("form", ["{}", "[1].all(n, {})"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("screen.ok", True),
        ("screen.id != 5 && !(screen.id == 5)", True),
        ("screen.id == report.id", False),
        ("screen.id == input.id && screen.id in [input.id]", True),
    ],
)
async def test_integers_that_cel_does_not_have_are_equal_only_to_themselves(
    text: str, expected: bool, form: str
) -> None:
    values = {"screen": {"id": LARGE, "ok": True}, "report": {"id": LARGE - 1}}

    assert await holds(form.format(text), input={"id": LARGE}, **values) is expected


@pytest.mark.parametrize("form", ["{}", "[1].all(n, {})"])
async def test_an_integer_that_cel_does_not_have_is_not_ordered(form: str) -> None:
    with pytest.raises(ConditionFailed, match="cannot be evaluated"):
        await holds(form.format("screen.id > 5"), screen={"id": LARGE})
