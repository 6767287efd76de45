"""The common form of all protocols: a request, the reply, and the usage.

The wires translate between this form and the protocols, and `replies` makes the reply to a request.
This module does not know HTTP.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Refusal(Exception):
    """An error answer to a request; the wire writes the answer in the provider's own form.

    Args:
        status: HTTP status.
        message: message for people; the wire has a default message for each status.
        kind: OpenAI's error type, if it differs from the usual type for the status.
        code: the provider's machine-readable code, such as `insufficient_quota`.
        param: the parameter that OpenAI's error names.
        retry_after_s: seconds for the Retry-After headers; None means that no such header is sent.
    """

    def __init__(
        self,
        status: int,
        message: str | None = None,
        *,
        kind: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A function that the request offers; `schema` is the JSON schema of the arguments."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """One request to a model, in any protocol.

    `prompt` has all system and user texts. `tool_results` and `tool_turns` cover only the part of
    the conversation after the last user text, so that a conversation may use tools again for the
    next question. `tool_choice` is "auto", "none", "required" or a tool's name. `schema` is the
    JSON schema of the reply, and `questions` is the number of user texts. The four fields from
    `service_tier` on belong to OpenAI. These fields are the tier that serves the request, whether
    the model reasons, whether the answer has the sealed reasoning, and the parameters that the
    answer repeats. `files` has the beginning of the SHA-256 of each image and file. `said` is the
    beginning of the reply, if earlier replies to the question were cut and the user asks to
    continue. `server_tools` has the names of the provider's own tools, with the largest number of
    uses of each tool in this request. If the provider's own tools ran in an earlier reply to the
    question, `server_turns` counts this reply. `containers` has the ids of the containers that the
    request names, and `gigabytes` is the size of a new container. `free_containers` is true if the
    provider bills no container of this request. `shows_outputs` is true if the answer has the
    outputs of programs.
    """

    provider: str
    model: str
    prompt: str
    question: str
    input_tokens: int
    max_tokens: int | None
    tools: tuple[Tool, ...]
    tool_choice: str
    tool_results: tuple[str, ...]
    tool_turns: int
    wants_json: bool
    schema: Mapping[str, Any] | None
    stream: bool
    include_usage: bool
    questions: int = 1
    service_tier: str = "default"
    reasons: bool = False
    sealed: bool = False
    echoed: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""
    files: tuple[str, ...] = ()
    server_tools: tuple[tuple[str, int], ...] = ()
    server_turns: int = 0
    containers: tuple[str, ...] = ()
    gigabytes: int = 1
    free_containers: bool = False
    shows_outputs: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerCall:
    """A use of a tool of the provider.

    `arguments` is JSON, and `page` is the page that was found. `text` is the part of this page that
    the model reads, or the output of a program. If `failed` is true, there is neither a page nor a
    text, and a search is free.
    """

    id: str
    name: str
    arguments: Mapping[str, str]
    page: str
    text: str
    failed: bool

    @property
    def output_tokens(self) -> int:
        """Number of tokens that the model generates for the use."""
        arguments = json.dumps(self.arguments, separators=(",", ":"))
        return count_tokens(self.name) + count_tokens(arguments)

    @property
    def result_tokens(self) -> int:
        """Number of tokens that the result adds to the prompt."""
        return 0 if self.failed else count_tokens(self.text)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A call of a tool; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The model's reply, which has a text or tool calls.

    `cut` is true if max_tokens ended the reply early. If `refused` is true, the text is a refusal
    to answer. The tools of the provider ran before the text. If `paused` is true, the text comes
    only when the reply is sent back.
    """

    text: str
    tool_calls: tuple[ToolCall, ...]
    reasoning_tokens: int
    cut: bool
    refused: bool = False
    server_calls: tuple[ServerCall, ...] = ()
    paused: bool = False

    @property
    def output_tokens(self) -> int:
        """Number of tokens that are billed as output, including the reasoning tokens."""
        calls = sum(
            count_tokens(call.name) + count_tokens(call.arguments) for call in self.tool_calls
        )
        calls += sum(call.output_tokens for call in self.server_calls)
        return self.reasoning_tokens + count_tokens(self.text) + calls

    def read_tokens(self, prompt_tokens: int) -> int:
        """Return the input tokens that are billed; after each use the prompt is read once more."""
        read = prompt_tokens
        for call in self.server_calls:
            prompt_tokens += call.output_tokens + call.result_tokens
            read += prompt_tokens
        return read

    def uses(self, name: str) -> int:
        """Return how often a tool of the provider brought a result."""
        return sum(call.name == name and not call.failed for call in self.server_calls)


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens of one answer. `input_tokens` counts the whole prompt, including the cached part.

    If tools of the provider ran, the prompt is counted as often as the model has read the prompt.
    """

    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    web_searches: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """All data of a successful response; `created` is a Unix time in seconds.

    `container` is the id of the container in which programs ran; None without a container.
    """

    id: str
    created: int
    request: ChatRequest
    reply: Reply
    usage: Usage
    container: str | None = None


@dataclass(slots=True)
class Transcript:
    """Reads the messages of a conversation, and checks that all tool calls have results.

    Every text counts as ceil(UTF-8 bytes / 4) tokens. Every image and PDF has the tokens of the
    provider's formula. Nothing else counts, so texts never have more tokens than bytes. A user's
    text that begins with "Continue" and follows a reply is no new question: the model goes on with
    the earlier reply.
    """

    input_tokens: int = 0
    prompts: list[str] = field(default_factory=list)
    question: str = ""
    questions: int = 0
    results: list[str] = field(default_factory=list)
    tool_turns: int = 0
    unanswered: set[str] = field(default_factory=set)
    said: str = ""
    last_reply: str = ""
    files: list[str] = field(default_factory=list)
    server_turns: int = 0

    def instruction(self, text: str) -> None:
        """Add a system or developer text, or a user's text that accompanies tool results."""
        self.prompts.append(text)
        self.input_tokens += count_tokens(text)

    def user(self, text: str) -> None:
        """Add a user's text, which starts a new question, or asks to continue the last reply."""
        self.close_calls()
        if self.last_reply and text.startswith("Continue"):
            self.said, self.last_reply = self.said + self.last_reply, ""
            self.input_tokens += count_tokens(text)
            return
        self.said = self.last_reply = ""
        self.questions += 1
        self.instruction(text)
        self.question = text
        self.results.clear()
        self.tool_turns = self.server_turns = 0

    def file(self, sha256: str, tokens: int) -> None:
        """Add an image or a file of a user's message."""
        self.files.append(sha256)
        self.input_tokens += tokens

    def assistant(self, text: str, calls: list[ToolCall], server_tokens: int | None = None) -> None:
        """Add an earlier reply of the model.

        `server_tokens` are the tokens that the provider's tools and their results have added; None
        if no tool of the provider ran.
        """
        self.input_tokens += server_tokens or 0
        self.server_turns += server_tokens is not None
        self.close_calls()
        self.input_tokens += count_tokens(text)
        for call in calls:
            self.input_tokens += count_tokens(call.name) + count_tokens(call.arguments)
            self.unanswered.add(call.id)
        self.tool_turns += bool(calls)
        self.last_reply = "" if calls else text

    def result(self, call_id: str, text: str) -> None:
        """Add a tool's result.

        Raises:
            Refusal: If no open call has this id.
        """
        if call_id not in self.unanswered:
            raise Refusal(400, f"The tool result for {call_id!r} has no preceding tool call.")
        self.unanswered.discard(call_id)
        self.results.append(text)
        self.input_tokens += count_tokens(text)

    def close_calls(self) -> None:
        """Check that every call has a result.

        Raises:
            Refusal: If a call has no result.
        """
        if self.unanswered:
            raise Refusal(400, f"Tool calls without a result: {', '.join(sorted(self.unanswered))}")


def count_tokens(text: str) -> int:
    """Count a text's tokens as ceil(UTF-8 bytes / 4); a lone surrogate counts as one byte."""
    return (len(text.encode("utf-8", "replace")) + 3) // 4
