"""Forty customer mails with LangGraph 1.2: the job of ../tutorial/mails.py."""

import json
import operator
import sys
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy, Send
from openai import APIConnectionError, APIStatusError
from pydantic import BaseModel

FOLDER = Path(__file__).parent.parent / "tutorial"
ORDERS = json.loads((FOLDER / "orders.json").read_text())
INPUT_USD, OUTPUT_USD = 0.15e-6, 0.60e-6  # dollars per token
BUDGET_USD = 0.05


class Triage(BaseModel):
    category: Literal["other", "delivery", "product", "refund"]
    refund_usd: float


class Mail(TypedDict):
    """The state of one mail: each node adds its part."""

    index: int
    text: str
    triage: NotRequired[Triage]
    reply: NotRequired[str]
    refund: NotRequired[str]


class Inbox(TypedDict):
    """The state of the whole job."""

    mails: list[dict[str, str]]
    handled: Annotated[list[Mail], operator.add]
    summary: NotRequired[str]


class Purse(BaseCallbackHandler):
    """Counts what this process has spent. A second process would have a purse of its own."""

    raise_error = True

    def __init__(self) -> None:
        self.spent_usd = 0.0
        self._lock = Lock()

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        if self.spent_usd >= BUDGET_USD:
            raise RuntimeError(f"the budget of ${BUDGET_USD} is spent")

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        usage = response.generations[0][0].message.usage_metadata
        with self._lock:
            self.spent_usd += usage["input_tokens"] * INPUT_USD
            self.spent_usd += usage["output_tokens"] * OUTPUT_USD


@tool
def find_order(number: str) -> dict[str, str]:
    """Find an order by its number, such as AC-1001."""
    return ORDERS.get(number, {"state": "there is no such order"})


purse = Purse()
limiter = InMemoryRateLimiter(requests_per_second=100, max_bucket_size=100)  # of this process
model = ChatOpenAI(
    model="gpt-4o-mini", max_tokens=150, max_retries=0, rate_limiter=limiter, callbacks=[purse]
)
sorter = model.with_structured_output(Triage)
replier = create_agent(model, tools=[find_order])


def triage(mail: Mail) -> dict[str, Triage]:
    prompt = "Sort this mail. refund_usd is the amount wanted back, or 0."
    return {"triage": sorter.invoke(f"{prompt}\n\n{mail['text']}")}


def reply(mail: Mail) -> dict[str, str]:
    prompt = (
        f"Draft a reply to this {mail['triage'].category} mail. Look up the order with "
        f"find_order.\n\n{mail['text']}"
    )
    answer = replier.invoke({"messages": [{"role": "user", "content": prompt}]})
    return {"reply": answer["messages"][-1].text}


def refund(mail: Mail) -> dict[str, str]:
    usd = mail["triage"].refund_usd
    prompt = f"Write the order to refund ${usd} for this mail.\n\n{mail['text']}"
    return {"refund": model.invoke(prompt).text}


def what_to_do(mail: Mail) -> list[str]:
    found = mail["triage"]
    due = found.category == "refund" and found.refund_usd >= 20
    return ["reply", "refund"] if due else ["reply"]


def is_worth_a_retry(error: Exception) -> bool:
    if isinstance(error, APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, APIConnectionError)


RETRY = RetryPolicy(max_attempts=4, initial_interval=1.0, retry_on=is_worth_a_retry)
one_mail = (
    StateGraph(Mail)
    .add_node("triage", triage, retry_policy=RETRY)
    .add_node("reply", reply, retry_policy=RETRY)
    .add_node("refund", refund, retry_policy=RETRY)
    .add_edge(START, "triage")
    .add_conditional_edges("triage", what_to_do, ["reply", "refund"])
    .add_edge("reply", END)
    .add_edge("refund", END)
    .compile()
)


def spread(inbox: Inbox) -> list[Send]:
    mails = enumerate(inbox["mails"])
    return [Send("handle", {"index": index, "text": mail["text"]}) for index, mail in mails]


def handle(mail: Mail) -> dict[str, list[Mail]]:
    return {"handled": [one_mail.invoke(mail)]}


def manager(inbox: Inbox) -> dict[str, str]:
    handled = sorted(inbox["handled"], key=lambda mail: mail["index"])
    found = json.dumps([mail["triage"].model_dump() for mail in handled])
    refunds = json.dumps([mail.get("refund") for mail in handled])
    prompt = f"Sum up today's mails for our boss. Sorted: {found}\n\nRefunds: {refunds}"
    return {"summary": model.invoke(prompt).text}


job = (
    StateGraph(Inbox)
    .add_node("handle", handle)
    .add_node("manager", manager, retry_policy=RETRY)
    .add_conditional_edges(START, spread, ["handle"])
    .add_edge("handle", "manager")
    .add_edge("manager", END)
)

if __name__ == "__main__":
    # python with_langgraph.py THREAD: the same thread goes on where an earlier process stopped.
    config = {"configurable": {"thread_id": sys.argv[1]}, "max_concurrency": 10}
    inbox = json.loads((FOLDER / "mails.json").read_text())
    with SqliteSaver.from_conn_string("mails.sqlite") as saver:
        graph = job.compile(checkpointer=saver)
        begun = graph.get_state(config).values
        done = graph.invoke(None if begun else {**inbox, "handled": []}, config, durability="sync")
    print(f"${purse.spent_usd:.4f} in this process")
    print(sum("refund" in mail for mail in done["handled"]), "refunds")
    print(done["summary"])
