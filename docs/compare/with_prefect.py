"""Forty customer mails with Prefect 3: the job of ../tutorial/mails.py."""

import json
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from openai import APIConnectionError, APIStatusError, OpenAI
from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE
from prefect.concurrency.sync import rate_limit
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff
from pydantic import BaseModel

FOLDER = Path(__file__).parent.parent / "tutorial"
ORDERS = json.loads((FOLDER / "orders.json").read_text())
MODEL = {"model": "gpt-4o-mini", "max_tokens": 150}
INPUT_USD, OUTPUT_USD = 0.15e-6, 0.60e-6  # dollars per token
BUDGET_USD = 0.05
FIND_ORDER = {
    "type": "function",
    "function": {
        "name": "find_order",
        "description": "Find an order by its number, such as AC-1001.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"number": {"type": "string"}},
            "required": ["number"],
            "additionalProperties": False,
        },
    },
}


class Triage(BaseModel):
    category: Literal["other", "delivery", "product", "refund"]
    refund_usd: float


class Purse:
    """Counts what this process has spent. A second process would have a purse of its own."""

    def __init__(self) -> None:
        self.spent_usd = 0.0
        self._lock = Lock()

    def check(self) -> None:
        if self.spent_usd >= BUDGET_USD:
            raise RuntimeError(f"the budget of ${BUDGET_USD} is spent")

    def add(self, usage: Any) -> None:
        with self._lock:
            self.spent_usd += usage.prompt_tokens * INPUT_USD
            self.spent_usd += usage.completion_tokens * OUTPUT_USD


purse = Purse()
client = OpenAI(max_retries=0, timeout=300)  # Prefect retries


def ask(messages: list[Any], **wanted: Any) -> Any:
    """Make one call within the rate limit and the budget."""
    rate_limit("openai")  # a limit of the server: prefect gcl create openai ...
    purse.check()
    answer = client.chat.completions.parse(messages=messages, **MODEL, **wanted)
    purse.add(answer.usage)
    return answer.choices[0].message


def is_worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    error = state.result(raise_on_failure=False)
    if isinstance(error, APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, APIConnectionError)


# A result is stored under its inputs, so a second run of the flow takes over what is done.
CALL: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(1),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_worth_a_retry,
    "persist_result": True,
    "cache_policy": INPUTS + TASK_SOURCE,
}


@task(**CALL)
def triage(mail: str) -> Triage:
    prompt = f"Sort this mail. refund_usd is the amount wanted back, or 0.\n\n{mail}"
    return ask([{"role": "user", "content": prompt}], response_format=Triage).parsed


@task(**CALL)
def reply(mail: str, triage: Triage) -> str:
    prompt = f"Draft a reply to this {triage.category} mail. Look up the order with find_order."
    messages: list[Any] = [{"role": "user", "content": f"{prompt}\n\n{mail}"}]
    for _ in range(10):
        answer = ask(messages, tools=[FIND_ORDER])
        if not answer.tool_calls:
            return answer.content
        messages.append(answer.model_dump(include={"role", "content", "tool_calls"}))
        for call in answer.tool_calls:
            number = json.loads(call.function.arguments)["number"]
            found = json.dumps(ORDERS.get(number, {"state": "there is no such order"}))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": found})
    raise RuntimeError("the model asks for tools without end")


@task(**CALL)
def refund(mail: str, triage: Triage) -> str:
    prompt = f"Write the order to refund ${triage.refund_usd} for this mail.\n\n{mail}"
    return ask([{"role": "user", "content": prompt}]).content


@task(**CALL)
def manager(triages: list[Triage | None], refunds: list[str | None]) -> str:
    found = json.dumps([each and each.model_dump() for each in triages])
    prompt = f"Sum up today's mails for our boss. Sorted: {found}\n\nRefunds: {json.dumps(refunds)}"
    return ask([{"role": "user", "content": prompt}]).content


def result_of(future: PrefectFuture[Any] | None) -> Any:
    """Return the result of a task, or None if the task failed or was not run."""
    if future is None:
        return None
    result = future.result(raise_on_failure=False)
    return None if isinstance(result, Exception) else result


@flow(task_runner=ThreadPoolTaskRunner(max_workers=10), timeout_seconds=3600)
def mails(inbox: list[dict[str, str]]) -> dict[str, Any]:
    texts = [mail["text"] for mail in inbox]
    sorted_ = triage.map(texts)
    replies = reply.map(texts, sorted_)
    triages = [result_of(future) for future in sorted_]
    refunds = [
        refund.submit(text, found)
        if found and found.category == "refund" and found.refund_usd >= 20
        else None
        for text, found in zip(texts, triages, strict=True)
    ]
    orders = [result_of(future) for future in refunds]
    return {
        "triage": triages,
        "reply": [result_of(future) for future in replies],
        "refund": orders,
        "manager": manager(triages, orders),
    }


if __name__ == "__main__":
    done = mails(json.loads((FOLDER / "mails.json").read_text())["mails"])
    print(f"${purse.spent_usd:.4f} in this process")
    print(sum(order is not None for order in done["refund"]), "refunds")
    print(done["manager"])
