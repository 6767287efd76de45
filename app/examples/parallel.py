"""Eight workflows that run at once under the same limits and budgets, with 37 agents in total.

To run it: python -m app.examples.parallel
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from app import Agent, Workflow, enqueue
from app.examples import document

INPUT = {
    "order_mail": document("order.txt"),
    "reviews": document("reviews.txt"),
    "resume": document("resume.txt"),
    "job": document("job.txt"),
    "invoice": document("invoice.txt"),
    "ledger": document("ledger.csv"),
    "stock": document("stock.csv"),
    "suppliers": document("suppliers.csv"),
    "policy": document("policy.txt"),
}

MINI, LARGE = "gpt-4o-mini", "gpt-4o"
HAIKU, SONNET = "claude-haiku-4-5", "claude-sonnet-5"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One agent in a short form, with its prompt, its model and its dependencies."""

    name: str
    prompt: str
    model: str = MINI
    after: Sequence[str] = ()


def workflows() -> list[Workflow]:
    """Build the eight workflows."""
    return [
        _workflow("order_intake", "General", ORDER_INTAKE),
        _workflow("customer_feedback", "General", CUSTOMER_FEEDBACK),
        _workflow("hiring", "HR", HIRING),
        _workflow("onboarding", "HR", ONBOARDING),
        _workflow("accounts_payable", "Finance", ACCOUNTS_PAYABLE),
        _workflow("month_end", "Finance", MONTH_END),
        _workflow("replenishment", "Inventory", REPLENISHMENT),
        _workflow("policy_review", "Compliance", POLICY_REVIEW),
    ]


def _workflow(name: str, module: str, steps: Sequence[Step]) -> Workflow:
    return Workflow(
        name=name,
        agents=[
            Agent(
                name=step.name,
                module=module,
                llm_config={"model": step.model, "max_tokens": 500},
                prompt_template=step.prompt,
                dependencies=step.after,
                cost_limit=0.1,
            )
            for step in steps
        ],
        cost_budget=0.5,
        timeout=600,
    )


ORDER_INTAKE = (
    Step(
        name="order_reader",
        prompt="Read this order.\n\n{order_mail}\n\nRespond with JSON only, with the keys "
        "order_number, customer, item, quantity and total.",
    ),
    Step(
        name="stock_check",
        prompt="Can {order_reader.quantity} of {order_reader.item} be delivered?\n\n{stock}",
        after=["order_reader"],
    ),
    Step(
        name="credit_check",
        model=HAIKU,
        prompt="May {order_reader.customer} order for {order_reader.total}? Its entries:\n{ledger}",
        after=["order_reader"],
    ),
    Step(
        name="order_confirmation",
        prompt="Confirm order {order_reader.order_number} in four sentences.\n\n"
        "Stock: {stock_check}\nCredit: {credit_check}",
        after=["stock_check", "credit_check"],
    ),
)
CUSTOMER_FEEDBACK = (
    Step(
        name="sentiment",
        prompt="Answer with exactly one of: positive, neutral, negative.\n\n{reviews}",
    ),
    Step(name="topics", model=HAIKU, prompt="List the topics of these reviews.\n\n{reviews}"),
    Step(name="complaints", prompt="Which reviews ask for an answer or money?\n\n{reviews}"),
    Step(
        name="answers",
        model=SONNET,
        prompt="Draft an answer to each complaint.\n\n{complaints}\n\n{reviews}",
        after=["complaints"],
    ),
    Step(
        name="feedback_report",
        prompt="Report on mood ({sentiment}), topics and answers.\n\n{topics}\n\n{answers}",
        after=["sentiment", "topics", "answers"],
    ),
)
HIRING = (
    Step(
        name="candidate_reader",
        prompt="Read this resume.\n\n{resume}\n\nRespond with JSON only, with the keys "
        "candidate_name, email, years_of_experience and skills.",
    ),
    Step(
        name="position_reader",
        prompt="Read this position.\n\n{job}\n\nRespond with JSON only, with the keys "
        "position, location and skills.",
    ),
    Step(
        name="skill_match",
        model=HAIKU,
        prompt="Compare {candidate_reader.skills} with {position_reader.skills}.",
        after=["candidate_reader", "position_reader"],
    ),
    Step(
        name="interview_questions",
        model=SONNET,
        prompt="Write five questions for {candidate_reader.candidate_name}.\n\n{skill_match}",
        after=["skill_match"],
    ),
    Step(
        name="hiring_note",
        prompt="Write a note to the hiring manager.\n\n{skill_match}\n\n{interview_questions}",
        after=["skill_match", "interview_questions"],
    ),
)
ONBOARDING = (
    Step(name="welcome_letter", prompt="Write a welcome letter for this position.\n\n{job}"),
    Step(name="equipment_list", prompt="List the equipment that this position needs.\n\n{job}"),
    Step(
        name="training_plan", model=HAIKU, prompt="Plan two weeks of training.\n\n{job}\n\n{policy}"
    ),
    Step(
        name="onboarding_plan",
        prompt="Join these into one plan.\n\n{welcome_letter}\n\n{equipment_list}\n\n"
        "{training_plan}",
        after=["welcome_letter", "equipment_list", "training_plan"],
    ),
)
ACCOUNTS_PAYABLE = (
    Step(
        name="invoice_reader",
        prompt="Read this invoice.\n\n{invoice}\n\nRespond with JSON only, with the keys "
        "invoice_number, vendor, due_date and total.",
    ),
    Step(
        name="duplicate_check",
        prompt="Is {invoice_reader.invoice_number} in these entries twice?\n\n{ledger}",
        after=["invoice_reader"],
    ),
    Step(
        name="receipt_match",
        model=LARGE,
        prompt="Match {invoice_reader} with orders and receipts.\n\n{ledger}",
        after=["invoice_reader"],
    ),
    Step(
        name="approval",
        model=HAIKU,
        prompt="Who has to approve {invoice_reader.total}?\n\n{policy}",
        after=["invoice_reader"],
    ),
    Step(
        name="payment_order",
        prompt="Write the payment order, or say what is missing.\n\n{duplicate_check}\n\n"
        "{receipt_match}\n\n{approval}",
        after=["duplicate_check", "receipt_match", "approval"],
    ),
)
MONTH_END = (
    Step(name="open_items", prompt="List the open items.\n\n{ledger}"),
    Step(name="accruals", model=LARGE, prompt="Which accruals are due?\n\n{ledger}\n\n{invoice}"),
    Step(name="stock_value", model=HAIKU, prompt="Value this stock at cost.\n\n{stock}"),
    Step(
        name="variance_notes",
        prompt="Explain what stands out.\n\n{open_items}\n\n{accruals}\n\n{stock_value}",
        after=["open_items", "accruals", "stock_value"],
    ),
    Step(
        name="closing_report",
        model=SONNET,
        prompt="Write the closing report.\n\n{variance_notes}",
        after=["variance_notes"],
    ),
)
REPLENISHMENT = (
    Step(name="demand_forecast", model=LARGE, prompt="Forecast demand for 30 days.\n\n{stock}"),
    Step(name="slow_movers", prompt="Which articles move slowly?\n\n{stock}"),
    Step(name="supplier_scores", model=HAIKU, prompt="Score these suppliers.\n\n{suppliers}"),
    Step(
        name="purchase_proposal",
        model=SONNET,
        prompt="Propose purchases.\n\n{demand_forecast}\n\n{slow_movers}\n\n{supplier_scores}",
        after=["demand_forecast", "slow_movers", "supplier_scores"],
    ),
    Step(
        name="purchase_letters",
        prompt="Write one order letter per supplier.\n\n{purchase_proposal}",
        after=["purchase_proposal"],
    ),
)
POLICY_REVIEW = (
    Step(name="policy_summary", prompt="Summarise this policy in five sentences.\n\n{policy}"),
    Step(name="policy_gaps", model=SONNET, prompt="What does this policy not cover?\n\n{policy}"),
    Step(
        name="training_questions",
        model=HAIKU,
        prompt="Write five questions for staff.\n\n{policy_summary}",
        after=["policy_summary"],
    ),
    Step(
        name="policy_proposal",
        model=LARGE,
        prompt="Propose changes to the policy.\n\n{policy_gaps}\n\n{training_questions}",
        after=["policy_gaps", "training_questions"],
    ),
)


def main() -> None:
    """Run all workflows at once, and print the result of each workflow."""
    started_s = time.monotonic()
    runs = {workflow.name: enqueue(workflow, INPUT) for workflow in workflows()}
    for name, run in runs.items():
        status = run.wait(timeout=300)
        print(f"{name:<18} {status:<20} {len(run.results):>2} agents  ${run.cost:.6f}  {run.id}")
    print(f"in total: {time.monotonic() - started_s:.1f} s")


if __name__ == "__main__":
    main()
