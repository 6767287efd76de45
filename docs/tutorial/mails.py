"""Forty customer mails: sort each one, draft a reply, prepare large refunds, sum up the day."""

import json
from pathlib import Path
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
    prompt_template="Sort this mail. refund_usd is what the customer wants back in dollars, or 0."
    "\n\n{item.text}",
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
    prompt_template="Sum up today's mails for the head of support. Sorted: {triage}\n\n"
    "Refunds: {refund}",
    llm_config=MODEL,
)
workflow = Workflow(name="mails", agents=[triage, reply, refund, manager], cost_budget=0.05)

if __name__ == "__main__":
    inbox = json.loads(Path(__file__).with_name("mails.json").read_text())
    run = enqueue(workflow, inbox)
    print(f"{run.id}: {run.wait(timeout=300)}, ${run.cost}")
    for mail, found in zip(inbox["mails"], run.result("triage"), strict=True):
        print(f"{mail['from']:20} {found.category:10} {found.refund_usd:8.2f}")
    print(run.result("manager"))
