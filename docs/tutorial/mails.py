"""Forty customer mails: sort each one, draft a reply, prepare large refunds, sum up the day."""

import json
from typing import Literal

from pydantic import BaseModel

from app import Agent, Workflow, enqueue

MODEL = {"model": "gpt-4o-mini", "max_tokens": 150}
MAIL_AND_TRIAGE = {"mail": "input.mails", "triage": "triage"}


class Triage(BaseModel):
    category: Literal["other", "delivery", "product", "refund"]
    refund_usd: float


triage = Agent(
    name="triage",
    for_each="input.mails",
    prompt_template="Sort this mail. refund_usd is the amount wanted back, or 0.\n\n{item.text}",
    llm_config=MODEL,
    output_schema=Triage,
)
reply = Agent(
    name="reply",
    dependencies=["triage"],
    for_each=MAIL_AND_TRIAGE,
    prompt_template="Draft a reply to this {triage.category} mail. Look up the order with "
    "find_order.\n\n{mail.text}",
    llm_config=MODEL,
    tools=["find_order"],
)
refund = Agent(
    name="refund",
    dependencies=["triage"],
    for_each=MAIL_AND_TRIAGE,
    condition="triage.category == 'refund' && triage.refund_usd >= 20",
    prompt_template="Write the order to refund ${triage.refund_usd} for this mail.\n\n{mail.text}",
    llm_config=MODEL,
)
manager = Agent(
    name="manager",
    dependencies=["triage", "reply", "refund"],
    prompt_template="Sum up today's mails for our boss. Sorted: {triage}\n\nRefunds: {refund}",
    llm_config=MODEL,
)
workflow = Workflow(name="mails", agents=[triage, reply, refund, manager], cost_budget=0.05)

if __name__ == "__main__":
    with open("mails.json") as file:
        run = enqueue(workflow, json.load(file))
    print(f"{run.wait(timeout=300)} for ${run.cost:.4f}")
    print([order for order in run.result("refund") if order])
    print(run.result("manager"))
