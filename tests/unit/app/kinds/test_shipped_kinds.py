"""The kinds of the package: their results on texts and records."""

from typing import Any

import pytest

from app.errors import InputRefused
from app.kinds.data_analyzer import DataAnalyzer
from app.kinds.sentiment import _WEIGHTS, LEXICON, sentiment_of
from app.kinds.text_processor import TextProcessor, keywords_of, sentences_of, summary_of
from tests.support.kind_contexts import agent_context

# ---- text_processor ------------------------------------------------------------------------------

REVIEW = (
    "The new scheduler is excellent. Dr. Chen said that the scheduler halved our queue times. "
    "Support was slow at first, but the answers were great! We do not regret the move to the "
    "scheduler. Lunch was served at noon."
)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The service was excellent and the staff friendly.", "positive"),
        ("Terrible. It broke after a day and nobody answered.", "negative"),
        ("The parcel has a weight of two kilograms.", "neutral"),
        ("This is not good.", "negative"),
        ("It wasn't bad at all.", "positive"),
        ("Slow delivery, but an excellent product.", "positive"),
        ("Excellent product, but the delivery was terrible.", "negative"),
        ("", "neutral"),
    ],
)
def test_sentiment(text: str, label: str) -> None:
    assert sentiment_of(text).label == label


def test_a_sentiment_score_stays_in_its_range_and_grows_with_intensity() -> None:
    scores = [sentiment_of(text).score for text in ("slightly good", "good", "very good")]

    assert scores == sorted(scores)
    assert len(set(scores)) == 3
    assert -1 <= sentiment_of("terrible " * 10_000).score < -0.9


def test_no_word_of_the_lexicon_has_two_weights() -> None:
    words = [word for text in _WEIGHTS.values() for word in text.split()]

    assert sorted(words) == sorted(LEXICON)


def test_sentences_end_where_they_end() -> None:
    assert len(sentences_of(REVIEW)) == 5
    assert sentences_of("One.\n\nTwo? \u201cThree!\u201d Four") != []


def test_a_summary_is_the_telling_sentences_in_their_order() -> None:
    summary = summary_of(REVIEW, 2)

    assert summary.count("scheduler") == 2
    assert "Lunch" not in summary
    assert summary_of("Only one.", 3) == "Only one."


def test_keywords_are_the_frequent_words_that_tell_something() -> None:
    assert keywords_of(REVIEW, 1) == ["scheduler"]
    assert "the" not in keywords_of(REVIEW, 50)


def test_the_text_processor_does_what_the_settings_or_the_request_choose() -> None:
    kind = TextProcessor()

    everything = kind.run(agent_context(text=REVIEW))
    chosen = kind.run(agent_context({"operations": "word_count"}, text=REVIEW))
    asked = kind.run(agent_context(text=REVIEW, task_type="sentiment_analysis"))

    assert everything["sentiment"] == asked["sentiment"] == "positive"
    assert {"summary", "keywords", "word_count"} <= everything.keys()
    assert (chosen["sentence_count"], "sentiment" in chosen) == (5, False)
    assert "summary" not in asked


@pytest.mark.parametrize("inputs", [{}, {"text": 5}, {"text": "a", "task_type": "sentimental"}])
def test_the_text_processor_refuses_what_it_cannot_work_on(inputs: dict[str, Any]) -> None:
    with pytest.raises(InputRefused):
        TextProcessor().run(agent_context(**inputs))


# ---- data_analyzer -------------------------------------------------------------------------------

RECORDS = [
    {"id": 1, "price": 10, "city": "Rome"},
    {"id": 2, "price": 20.5, "city": "Oslo"},
    {"id": 2, "price": 30, "city": "Rome"},
    {"id": 4, "price": "cheap", "city": "Rome"},
    {"id": None, "price": 1, "city": ""},
    "no record",
    {"id": 7, "price": None, "city": "Rome"},
]


def test_records_are_checked_and_the_good_ones_described() -> None:
    config = {"required": ["id"], "types": {"price": "number"}, "unique": ["id"]}

    found = DataAnalyzer().run(agent_context(config, data=RECORDS))

    assert [record["id"] for record in found["clean_data"]] == [1, 2, 7]
    assert (found["valid"], found["invalid"]) == (3, 4)
    assert [problem["index"] for problem in found["problems"]] == [2, 3, 4, 5]
    fields = found["stats"]["fields"]
    assert (fields["price"]["mean"], fields["price"]["missing"]) == (15.25, 1)
    assert fields["city"]["most_common"][0] == {"value": "Rome", "count": 2}


def test_plain_numbers_are_described_too() -> None:
    kind = DataAnalyzer()

    found = kind.run(agent_context({"operations": ["statistics"]}, data="[1, 2, 3, 4]"))

    about = found["stats"]["fields"]["value"]
    assert (about["median"], about["quartiles"]) == (2.5, [1.75, 2.5, 3.25])
    assert "clean_data" not in found


def test_clean_data_of_one_analyzer_is_data_of_the_next() -> None:
    kind = DataAnalyzer()

    first = kind.run(agent_context(data=RECORDS))
    second = kind.run(agent_context(data=first["clean_data"]))

    assert second["stats"] == first["stats"]
    assert kind.run(agent_context(data=[]))["stats"] == {"records": 0, "fields": {}}
