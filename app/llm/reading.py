"""Decides whether an answer is whole or a failure, and which tokens the answer has cost.

All protocols share this code. The code gets an ``Answer`` that a protocol's module has read.
"""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from app.domain.usage import Partial, served_by
from app.errors import BadRequest, ProviderError, ServerFailure
from app.llm.answers import Answer
from app.llm.base import LLMResponse, ToolCall
from app.llm.call_ids import unique
from app.llm.errors import from_answer, reports_failure
from app.llm.finish import Finish, failure_of, finish_of
from app.llm.headers import limit_headers, request_id
from app.llm.request import Request
from app.llm.streams import Assembly
from app.llm.usage import Counts
from app.llm.wire import PROTOCOL_ERRORS, legible, name_of, read_json, storable

if TYPE_CHECKING:
    import httpx2

log = structlog.get_logger(__name__)

# With a parameter in ``_ADDING``, a server adds results of searches, or earlier messages, to the
# prompt. A model whose name matches ``_SEARCHES`` always searches.
_ADDING = frozenset(
    {
        *("web_search_options", "search_parameters", "plugins", "mcp_servers", "container"),
        *("previous_response_id", "conversation", "prompt"),
    }
)
_SEARCHES = re.compile("search|sonar|compound", re.IGNORECASE)


class AnswerReader:
    """Reads the answers of one client.

    Args:
        provider: Name of the provider.
        api_key: The key of the calls; the key is removed from messages.
        origin: Name of the reader that understands the originals of these answers: the name of the
            provider, or of one of the provider's request forms.
        read: Reads a whole answer of the protocol; raises one of ``PROTOCOL_ERRORS`` if the answer
            does not follow the protocol.
        hides: Returns whether the answer to a request may leave out a part of the generated text.
    """

    def __init__(
        self,
        *,
        provider: str,
        api_key: str | None,
        origin: str,
        read: Callable[[Any], Answer],
        hides: Callable[[Mapping[str, Any]], bool],
    ) -> None:
        self._provider = provider
        self._api_key = api_key
        self._origin = origin
        self._read = read
        self._hides = hides

    def whole(self, content: bytes, response: "httpx2.Response", request: Request) -> LLMResponse:
        """Read an answer that is one document.

        Args:
            content: The body of the answer.
            response: The HTTP response.
            request: The request.
        """
        try:
            answer = read_json(content)
        except PROTOCOL_ERRORS as error:
            raise self.not_the_protocol(response, "not JSON") from error
        found = self._understood(answer, response)
        return self._finished(found, response, request, counts=found.counts)

    def streamed(
        self, response: "httpx2.Response", request: Request, assembly: Assembly
    ) -> LLMResponse:
        """Read an answer that was streamed."""
        found = self._understood(assembly.answer(), response)
        counts = assembly.counts
        seen = assembly.bounded(prompt_tokens=0, max_tokens=request.max_tokens).output_tokens
        least = 0 if counts.output or counts.total else seen
        return self._finished(found, response, request, counts=counts, least=least)

    def _believed(self, counts: Counts, request: Request) -> Counts:
        """Return the counts, but leave out counts that are too large for the request."""
        body = request.body

        def bound() -> int:
            return 0 if _adds_to_prompt(body) else prompt_bound(request)

        believed = counts.plausible(prompt_bound=bound, max_tokens=request.max_tokens)
        if believed != counts:
            log.warning(
                "counts_too_large",
                provider=self._provider,
                model=str(body["model"]),
                prompt_tokens=counts.usage.prompt_tokens,
                output_tokens=counts.usage.output_tokens,
                effect="the tokens are estimated",
            )
        return believed

    def _output_bound(self, answer: Answer, request: Request) -> int:
        hides = answer.hides or self._hides(request.body)
        return request.max_tokens if hides else min(answer.shown_tokens, request.max_tokens)

    def _understood(self, answer: Any, response: "httpx2.Response") -> Answer:
        try:
            found = self._read(answer)
            failed = not found.error and reports_failure(answer)
            return replace(found, error=answer) if failed else found
        except PROTOCOL_ERRORS as error:
            if reports_failure(answer):
                raise self.reported(answer, response) from error
            raise self.not_the_protocol(response, f"{type(error).__name__}: {error}") from error

    def _finished(
        self,
        answer: Answer,
        response: "httpx2.Response",
        request: Request,
        *,
        counts: Counts,
        least: int = 0,
    ) -> LLMResponse:
        """Return the answer; for a failed answer, raise the failure with the answer's tokens.

        Args:
            answer: The answer.
            response: The HTTP response.
            request: The request.
            counts: The provider's final counts.
            least: Least possible number of output tokens, for an output without a count.
        """
        given, counts = counts, self._believed(counts, request)
        bound = 0
        if not counts.output:
            bound = request.max_tokens if given.output else self._output_bound(answer, request)
        usage = counts.bounded(
            prompt_tokens=0 if counts.prompt else prompt_bound(request),
            output_tokens=max(bound, least),
        )
        usage = replace(
            usage,
            web_searches=max(usage.web_searches, answer.web_searches),
            container_seconds=_container_seconds(answer, request),
        )
        raw_usage, told = storable(answer.raw_usage), storable(answer.facts)
        model = name_of(answer.model) or str(request.body["model"])
        # The provider can continue only a message that goes back unchanged.
        finish = finish_of(answer.word, may_pause=request.may_pause and bool(answer.original))
        if finish == "tool_calls" and not answer.calls:
            finish = None  # the calls were lost on their way
        if answer.error or finish is None:
            failure = self._failure(answer, response)
            # An error in place of an answer costs nothing, unless it counts tokens.
            counted = counts.usage.total_tokens or counts.total or counts.usage.web_searches
            if not answer.error or answer.shown_tokens or counted:
                failure.partial = Partial(
                    usage=usage,
                    prompt_counted=counts.prompt,
                    final=counts.whole,
                    raw_usage=raw_usage,
                    served=served_by(told),
                    model=model,
                    request_id=failure.request_id,
                    headers=failure.headers,
                )
            raise failure
        facts = {
            "refusal": legible(answer.refusal),
            **told,
            "original": self._original(answer, request),
            "usage_missing": not counts.whole or None,
            "prompt_counted": (counts.prompt and not counts.output) or None,
        }
        return LLMResponse(
            content=legible(answer.text),
            model=model,
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            finish_reason=_finish(finish, answer),
            tool_calls=unique(list(map(_legible, answer.calls))) or None,
            usage=usage,
            raw_usage=raw_usage,
            request_id=request_id(response.headers),
            headers=limit_headers(response.headers),
            metadata={name: value for name, value in facts.items() if value is not None},
        )

    def _original(self, answer: Answer, request: Request) -> dict[str, Any] | None:
        """Return the unchanged message, with the container that the provider may use again."""
        if not answer.original:
            return None
        original = {"by": self._origin, "message": answer.original}
        if request.programs is None or not answer.containers:
            return original
        # The last use of the container may have been at the beginning of the call.
        last_used_s = time.time() - request.programs.elapsed_s()
        until_s = last_used_s + request.programs.rules.kept_s
        return {**original, "container": {"id": answer.containers[-1], "until_s": int(until_s)}}

    def _failure(self, answer: Answer, response: "httpx2.Response") -> ProviderError:
        """Return the failure that an answer reports, or that the answer's last word means."""
        if answer.error:
            return self.reported({"error": answer.error}, response)
        return failure_of(answer.word)(
            f"the answer of {self._provider} is not whole: it ended with {answer.word!r:.60}",
            provider=self._provider,
            status=response.status_code,
            request_id=request_id(response.headers),
            headers=limit_headers(response.headers),
        )

    def reported(self, body: Mapping[str, Any], response: "httpx2.Response") -> ProviderError:
        """Return the failure that a body, or an event of a stream, reports."""
        return from_answer(
            provider=self._provider,
            status=response.status_code,
            headers=response.headers,
            body=body,
            api_key=self._api_key,
        )

    def not_the_protocol(self, response: "httpx2.Response", detail: str) -> ServerFailure:
        """Return the failure for an answer, or a stream, in a form that cannot be read."""
        return ServerFailure(
            f"{self._provider} answered in a form that is not its protocol ({detail})",
            provider=self._provider,
            status=response.status_code,
            request_id=request_id(response.headers),
            headers=limit_headers(response.headers),
        )


def _container_seconds(answer: Answer, request: Request) -> int:
    if request.programs is None:
        return 0
    shown, ran = len(answer.containers), answer.ran_programs
    return request.programs.container_seconds(shown, ran=ran)


def _legible(call: ToolCall) -> ToolCall:
    return replace(call, name=legible(call.name), arguments=_unquoted(legible(call.arguments)))


def _unquoted(arguments: str) -> str:
    """Return arguments that a server has written as JSON twice, so that they are an object."""
    if arguments.lstrip().startswith('"'):
        with suppress(*PROTOCOL_ERRORS):
            text = read_json(arguments.encode("utf-8", "surrogatepass"))
            if isinstance(read_json(text.encode("utf-8", "surrogatepass")), dict):
                return str(text)
    return arguments


def _finish(finish: Finish, answer: Answer) -> Finish:
    """Return how an answer ended; servers say "stop" for refusals and tool calls, too."""
    if answer.refusal:
        return "content_filter"
    return "tool_calls" if answer.calls and finish in ("stop", "pause") else finish


def _adds_to_prompt(body: Mapping[str, Any]) -> bool:
    """Return whether a server may add texts to the prompt; the prompt's bytes are then no bound."""
    if any(name in body for name in _ADDING) or _SEARCHES.search(str(body["model"])):
        return True
    return any(
        tool.get("type") != "function" and "input_schema" not in tool
        for tool in body.get("tools") or ()
    )


def prompt_bound(request: Request) -> int:
    """Return the upper bound of the prompt's tokens; 0 for a prompt that has no bound."""
    try:
        return request.prompt_tokens()
    except BadRequest:  # the prompt has parts without a price; workers make no such calls
        return 0
