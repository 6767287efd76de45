"""The kind ``text_processor``: sentiment, summary, keywords and counts of a text, without a model.

All results are deterministic and made for English. The summary consists of sentences of the text,
the keywords are the most frequent words of the text, and the sentiment comes from a lexicon.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from app.domain.bounds import Bounds, find_problem
from app.domain.suggestions import did_you_mean, listed, shortened
from app.errors import InputRefused
from app.kinds.base import AgentContext, Config
from app.kinds.config import check_keys, check_operations, refuse
from app.kinds.sentiment import sentiment_of

KEYS = ("operations", "sentences", "keywords")
DEFAULT_SENTENCES = 3
DEFAULT_KEYWORDS = 10
NUMBER = Bounds(low=1, high=1000, whole=True, optional=True)
BOUNDS = {"sentences": NUMBER, "keywords": NUMBER}
#: Longer texts are refused, because the count of the words would take too long.
MAX_CHARS = 5_000_000
WORDS_A_MINUTE = 200
MIN_KEYWORD_CHARS = 3
# A sentence ends at . ! ? before a space, unless the dot ends an abbreviation or an initial.
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n{2,}")
_ABBREVIATION = re.compile(r"(?:^|\s)(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|No|Inc|Ltd)\.$")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
STOPWORDS = frozenset(
    "a about above after again against all also am an and any are as at be because been before "
    "being below between both but by can could did do does doing down during each even few for "
    "from further had has have having he her here hers him his how however i if in into is it its "
    "just like made make many may me might more most much must my new no nor not now of off on "
    "once one only or other our out over own said same say says she should since so some such than "
    "that the their theirs them then there these they this those through to too two under until up "
    "upon us very was we were what when where which while who whom why will with within without "
    "would you your yours".split()
)


class TextProcessor:
    """Agents that work on the input ``text``, without a model.

    This kind counts English words without understanding the words' meaning. For a summary in new
    words, or for another language, use an llm agent.

    Example:
        Agent(name="mood", kind="text_processor", config={"operations": ["sentiment"]})
    """

    def validate(self, config: Config) -> None:
        """Check the settings."""
        check_keys(config, KEYS)
        wanted = config.get("operations", [])
        if not isinstance(wanted, str | list):
            refuse("operations", f"is {shortened(wanted)}: give a list of names")
        check_operations([wanted] if isinstance(wanted, str) else wanted, tuple(OPERATIONS))
        if found := find_problem({**dict.fromkeys(BOUNDS), **config}, BOUNDS):
            refuse(*found)

    def run(self, context: AgentContext) -> dict[str, Any]:
        """Do the operations of the settings.

        If the settings name no operations, do the operation that the input ``task_type`` names.
        Without a ``task_type``, do all operations.
        """
        text = context.inputs.get("text")
        if not isinstance(text, str):
            raise InputRefused(
                f"agent {context.agent!r} works on the input 'text', which is "
                f"{'missing' if text is None else shortened(text)}: give a text"
            )
        if len(text) > MAX_CHARS:
            raise InputRefused(
                f"agent {context.agent!r}: the text has {len(text):,} characters, but the limit is "
                f"{MAX_CHARS:,}: split the text"
            )
        found: dict[str, Any] = {}
        for name in _wanted(context):
            found |= OPERATIONS[name](text, context.config)
        return found


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text, with single spaces."""
    sentences: list[str] = []
    pending = ""
    for part in _END.split(text):
        pending = f"{pending} {' '.join(part.split())}".strip()
        if pending and not _ABBREVIATION.search(pending):
            sentences.append(pending)
            pending = ""
    return [*sentences, pending] if pending else sentences


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def summary_of(text: str, count: int) -> str:
    """Return the sentences with the most frequent words, in the order of the text (Luhn 1958)."""
    sentences = sentences_of(text)
    if len(sentences) <= count:
        return " ".join(sentences)
    frequency = Counter(word for word in words_of(text) if _tells(word))
    scores = [_score(sentence, frequency) for sentence in sentences]
    best = sorted(range(len(sentences)), key=lambda place: (-scores[place], place))[:count]
    return " ".join(sentences[place] for place in sorted(best))


def keywords_of(text: str, count: int) -> list[str]:
    """Return the most frequent words, without stop words.

    If two words are equally frequent, the word that occurs earlier comes first.
    """
    frequency = Counter(word for word in words_of(text) if _tells(word))
    return [word for word, _ in frequency.most_common(count)]


def _score(sentence: str, frequency: Counter[str]) -> float:
    telling = [word for word in words_of(sentence) if word in frequency]
    # The sum is divided by the root of the length, so that neither long nor short sentences win.
    return float(sum(frequency[word] for word in set(telling)) / (len(telling) ** 0.5 or 1.0))


def _tells(word: str) -> bool:
    return len(word) >= MIN_KEYWORD_CHARS and word not in STOPWORDS


def _sentiment(text: str, config: Config) -> dict[str, Any]:  # noqa: ARG001  one form for all
    found = sentiment_of(text)
    return {
        "sentiment": found.label,
        "sentiment_score": found.score,
        "sentiment_words": found.words,
    }


def _summary(text: str, config: Config) -> dict[str, Any]:
    return {"summary": summary_of(text, config.get("sentences") or DEFAULT_SENTENCES)}


def _keywords(text: str, config: Config) -> dict[str, Any]:
    return {"keywords": keywords_of(text, config.get("keywords") or DEFAULT_KEYWORDS)}


def _counts(text: str, config: Config) -> dict[str, Any]:  # noqa: ARG001  one form for all
    words = words_of(text)
    return {
        "word_count": len(words),
        "unique_words": len(set(words)),
        "sentence_count": len(sentences_of(text)),
        "character_count": len(text),
        "reading_time_s": round(60 * len(words) / WORDS_A_MINUTE),
    }


OPERATIONS: dict[str, Callable[[str, Config], dict[str, Any]]] = {
    "sentiment": _sentiment,
    "summary": _summary,
    "keywords": _keywords,
    "word_count": _counts,
}
#: The operation for each value of the input ``task_type``.
TASKS = {
    "sentiment_analysis": "sentiment",
    "summarization": "summary",
    "text_summary": "summary",
    "keyword_extraction": "keywords",
    **{name: name for name in OPERATIONS},
}


def _wanted(context: AgentContext) -> list[str]:
    if wanted := context.config.get("operations"):
        return [wanted] if isinstance(wanted, str) else list(wanted)
    task = context.inputs.get("task_type")
    if task is None:
        return list(OPERATIONS)
    if not isinstance(task, str) or task not in TASKS:
        raise InputRefused(
            f"agent {context.agent!r}: there is no task_type {shortened(task)}; known: "
            f"{listed(TASKS)}{did_you_mean(str(task), TASKS)}"
        )
    return [TASKS[task]]
