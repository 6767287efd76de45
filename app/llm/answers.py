"""An answer in the form of its protocol, before it is known whether the answer is a failure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.llm.base import ToolCall
from app.llm.tokens import CALL_TOKENS, generated_bytes
from app.llm.usage import Counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The parts of an answer; the code of the answer's protocol has read these parts.

    Attributes:
        text: The text of the answer.
        calls: The model's tool calls, unchanged; the ids of the calls may be missing or equal.
        word: The provider's word for how the answer ended, or None if there is no word.
        model: Name of the model that answered, or None.
        counts: The tokens that the provider has counted.
        raw_usage: The provider's own usage object.
        original: The unchanged message, if the message has parts that neither the text nor the
            calls tell and that the provider needs again; otherwise None.
        refusal: The model's own words for its refusal, or None.
        error: The body of an error, if the answer itself reports a failure; otherwise None.
        facts: Further facts for ``LLMResponse.metadata``; a fact that is None is left out.
        web_searches: Number of searches that the answer shows.
        containers: Ids of the containers that the answer names, each once.
        ran_programs: Whether the answer shows that programs of the model ran.
        shown: The part of the answer with all texts that the model has generated.
        hides: Whether the answer has a part that may be shorter than the text that the model
            generated.
    """

    text: str
    calls: Sequence[ToolCall] = ()
    word: object = None
    model: str | None = None
    counts: Counts = field(default_factory=Counts)
    raw_usage: Mapping[str, Any] = field(default_factory=dict)
    original: Any = None
    refusal: str | None = None
    error: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    web_searches: int = 0
    containers: Sequence[str] = ()
    ran_programs: bool = False
    shown: Any = None
    hides: bool = False

    @property
    def shown_tokens(self) -> int:
        """Upper bound of the tokens of everything that the answer shows."""
        return generated_bytes(self.shown) + CALL_TOKENS * len(self.calls)
