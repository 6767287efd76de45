"""Sentiment of English text by a lexicon: some 300 words with a weight from -3 to 3.

This module distinguishes clear praise from clear complaint, with negation ("not good"), intensity
("very bad") and contrast ("slow, but excellent"). This module does not recognise irony, other
languages or words outside the lexicon. If the sentiment needs judgement, use an llm agent. The sum
of the weights is normalised as in VADER (Hutto and Gilbert 2014). The package of VADER is not used,
because the package is no longer maintained.
"""

import re
from dataclasses import dataclass
from math import sqrt

_WEIGHTS = {
    3: "amazing awesome best brilliant excellent exceptional fantastic flawless love loved loves "
    "magnificent marvelous outstanding perfect perfectly phenomenal stunning superb terrific "
    "thrilled wonderful",
    2: "beautiful benefit benefits delight delighted delightful delicious easy effective efficient "
    "elegant enjoy enjoyed enjoyable enjoys excited exciting favorite favourite friendly fun "
    "generous glad good gorgeous grateful great happy healthy helpful impressed impressive "
    "improved improvement improvements innovative joy joyful kind lovely nice pleasant pleased "
    "pleasure profitable recommend recommended reliable remarkable satisfied smooth solid success "
    "successful superior thank thanks trust valuable win winner winning wins",
    1: "able accurate advance advantage affordable better calm clean clear comfortable convenient "
    "correct fair fast fine fresh gain gained gains growth grew hope hopeful improve improves "
    "improving interesting like liked likes okay positive progress prompt quick responsive rise "
    "rising rose safe secure simple smart stable strong support supported useful warm welcome well "
    "worth",
    -1: "avoid cold complicated concern concerned concerns confusing costly decline declined "
    "declines decrease delay delayed delays difficult doubt dull error errors expensive fell hard "
    "issue issues lack lacks late limited lose loses low mediocre miss missed missing negative "
    "noisy old overpriced problem problems risk risks risky slow slower sorry tired uncertain "
    "unclear unexpected weak wait waiting worry worried worse",
    -2: "afraid anger angry annoyed annoying bad boring break breaks broke broken bug bugs cheat "
    "complain complained complaint complaints crash crashed crashes damage damaged defect "
    "defective dirty disappoint disappointed disappointing disappointment fail failed failing "
    "fails failure failures fault faulty frustrated frustrating frustration harm hurt inferior "
    "lost loss losses mistake mistakes poor poorly refund refuse refused regret reject rejected "
    "rude sad scared sick stupid trouble ugly unacceptable unfair unhappy unhelpful unreliable "
    "unsafe upset useless waste wasted wrong",
    -3: "abysmal appalling atrocious awful catastrophe catastrophic crap despise disaster "
    "disastrous disgusting dreadful fraud garbage hate hated hates hideous horrible horrific "
    "nightmare pathetic scam terrible terribly unbearable worst worthless",
}
LEXICON = {word: weight for weight, words in _WEIGHTS.items() for word in words.split()}
NEGATIONS = frozenset(
    "no not never none nobody nothing neither nor without hardly barely scarcely cannot".split()
)
BOOSTERS = {
    **dict.fromkeys(
        "absolutely completely especially extremely highly incredibly really so totally truly "
        "utterly very".split(),
        1.3,
    ),
    **dict.fromkeys("a-bit fairly kind-of quite rather slightly somewhat".split(), 0.7),
}
# A negation changes the next three words; "not good" is weaker than "bad".
_REACH = 3
_NEGATED = -0.74
# In "slow, but excellent", the words after "but" count more than the words before "but".
_BEFORE_BUT, _AFTER_BUT = 0.5, 1.5
_NORMALISER = 15.0
THRESHOLD = 0.05
_WORD = re.compile(r"[a-z]+(?:['\u2019-][a-z]+)*|[!?.;]")
_ENDS = frozenset(".;!?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentiment:
    """The sentiment of a text.

    Attributes:
        label: ``positive``, ``negative`` or ``neutral``.
        score: Number from -1 to 1; a score between -0.05 and 0.05 is neutral.
        words: Number of words of the text that are in the lexicon. If this number is 0, the label
            ``neutral`` means that the sentiment is unknown.
    """

    label: str
    score: float
    words: int


def sentiment_of(text: str) -> Sentiment:
    """Return the sentiment of an English text."""
    total, known = 0.0, 0
    clause: list[float] = []
    before: list[str] = []
    for word in _WORD.findall(text.lower()):
        if word in _ENDS:
            total += sum(clause)
            clause, before = [], []
            continue
        if word == "but":
            clause = [weight * _BEFORE_BUT for weight in clause]
        elif (weight := LEXICON.get(word)) is not None:
            known += 1
            clause.append(weight * _factor(before) * (_AFTER_BUT if "but" in before else 1.0))
        before.append(word)
    total += sum(clause)
    score = round(total / sqrt(total * total + _NORMALISER), 4)
    label = "positive" if score >= THRESHOLD else "negative" if score <= -THRESHOLD else "neutral"
    return Sentiment(label=label, score=score, words=known)


def _factor(before: list[str]) -> float:
    """Return the factor by which the words before a word change the weight of that word."""
    factor = BOOSTERS.get(before[-1], 1.0) if before else 1.0
    negated = any(
        word in NEGATIONS or word.endswith(("n't", "n\u2019t")) for word in before[-_REACH:]
    )
    return factor * (_NEGATED if negated else 1.0)
