"""The words of a refusal are a text, in whatever form a server gives them."""

from typing import Any

import pytest

from app.llm.anthropic_answer import read_message
from app.llm.openai_answer import read_completion


@pytest.mark.parametrize("explanation", [["a"], {"why": "a"}, 5, True, [5], "", None, [], False])
def test_a_refusal_is_a_text(explanation: Any) -> None:
    details = {"explanation": explanation}

    whole = read_message({"content": [], "stop_reason": "refusal", "stop_details": details})
    message = {"content": "", "refusal": explanation}
    chat = read_completion({"choices": [{"message": message, "finish_reason": "stop"}]})

    assert isinstance(whole.refusal, str | None)
    assert isinstance(chat.refusal, str | None)
    assert bool(explanation) or (whole.refusal, chat.refusal) == (None, None)
