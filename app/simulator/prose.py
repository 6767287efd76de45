"""Sentences about a prompt, by topic: invoices, candidates, stock, policies, reports, the rest."""

import re
from collections import Counter

from app.simulator.facts import Facts

_TOPICS: dict[str, tuple[str, ...]] = {
    "invoice payment vendor reconcil billing": (
        "The invoice for {subject} was checked: {w0}, {w1} and {w2} are consistent.",
        "The amount of {number} agrees with its lines, and no duplicate was found.",
        "It can be released for payment; keep the note on {w3} with the record.",
    ),
    "resume candidate interview applicant hiring": (
        "The profile of {subject} shows solid experience with {w0}, {w1} and {w2}.",
        "The overall match is {score} of 100.",
        "An interview is recommended, with questions about {w3}.",
    ),
    "stock inventor reorder warehouse supplier": (
        "Stock of {subject} was analysed with regard to {w0}, {w1} and {w2}.",
        "At the present rate of use, {number} units last about {score} days.",
        "A reorder is advisable before {w3} falls below its safety level.",
    ),
    "polic complian regulat audit gdpr": (
        "The policy check of {subject} covered {w0}, {w1} and {w2}.",
        "{score} of 100 points were reached, and no critical violation was found.",
        "The wording on {w3} should be reviewed within 30 days.",
    ),
    "report summar overview": (
        "This report on {subject} brings together {w0}, {w1} and {w2}.",
        "The key figure is {number}, and the trend is stable.",
        "Next, {w3} deserves a closer look.",
    ),
}
_TOPIC_OF = {stem: stems for stems in _TOPICS for stem in stems.split()}
_STEMS = re.compile("|".join(_TOPIC_OF))
_GENERAL = (
    "For {subject}, the main points are {w0}, {w1} and {w2}.",
    "The relevant figure is {number}.",
    "As a next step, look closer at {w3}.",
)
_FILLERS = ("scope", "timing", "quality", "cost")
_CLOSING = "Confidence in this answer is {score} percent."
_CHOICE = re.compile(
    r"\b(?:exactly one|one) (?:of|word)\b(?: of)?(?: the following)?[:\s]+"
    r"([`\"']?\w+[`\"']?(?:\s*(?:,\s*(?:or\s+)?|/|\bor\s+)[`\"']?\w+[`\"']?)+)",
    re.IGNORECASE,
)
_GOOD = re.compile(
    r"\b(?:good|great|excellent|love\w*|happy|amazing|best|positive|wonderful)\b", re.IGNORECASE
)
_BAD = re.compile(
    r"\b(?:bad|poor|terrible|hate\w*|unhappy|awful|worst|negative|broken)\b", re.IGNORECASE
)


def paragraph(facts: Facts) -> str:
    """Write two to four sentences that use words of the prompt."""
    stems = Counter(_TOPIC_OF[stem] for stem in _STEMS.findall(facts.text.lower()))
    sentences = _TOPICS[stems.most_common(1)[0][0]] if stems else _GENERAL
    subject = next(iter(facts.codes or facts.names or facts.quoted), "the present case")
    shown = subject.lower()
    telling = [word for word in facts.words if word not in shown and not _STEMS.match(word)]
    words = [*telling, *_FILLERS][:4]
    text = " ".join((*sentences, _CLOSING)[: facts.pick("sentences", (2, 3, 4))])
    return text.format(
        subject=subject,
        number=next((f"{number:,}" for number in facts.numbers), str(facts.draw("number") % 900)),
        score=facts.draw("score") % 30 + 70,
        **{f"w{index}": word for index, word in enumerate(words)},
    )


def chosen_from(facts: Facts) -> str | None:
    """Return the chosen word if the prompt asks for one of several words, else return None."""
    asked = _CHOICE.search(facts.text)
    if asked is None:
        return None
    choices: list[str] = [word for word in re.findall(r"\w+", asked[1]) if word.lower() != "or"]
    rest = facts.text.replace(asked[0], " ")
    mood = len(_GOOD.findall(rest)) - len(_BAD.findall(rest))
    lowered = {choice.lower(): choice for choice in choices}
    if {"positive", "negative"} <= set(lowered) and mood:
        return lowered["positive" if mood > 0 else "negative"]
    return facts.pick("choice", choices)
