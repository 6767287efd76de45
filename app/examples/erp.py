"""Twelve agents in the modules of an ERP system, on two providers, with one summary for all.

Every module is a separate chain of agents. Compliance then checks the results of all chains:

    HR          resume_parser -> resume_screener -> interview_scheduler ----+
    Finance     invoice_processor -> payment_planner -> reconciler -----+   |
    Inventory   stock_analyst -> reorder_optimizer -> supplier_selector-+   |
    Compliance  policy_checker -> audit_reporter <----------------------+   |
                audit_reporter -> executive_summary <-----------------------+

To run it: agentchord run app.examples.erp --follow
"""

from typing import Any

from app import Agent, Workflow, enqueue
from app.examples import document

INPUT = {
    "resume": document("resume.txt"),
    "job": document("job.txt"),
    "invoice": document("invoice.txt"),
    "ledger": document("ledger.csv"),
    "stock": document("stock.csv"),
    "suppliers": document("suppliers.csv"),
    "policy": document("policy.txt"),
}

QUICK: dict[str, Any] = {"model": "gpt-4o-mini", "temperature": 0.0, "max_tokens": 500}
THOROUGH: dict[str, Any] = {"model": "gpt-4o", "temperature": 0.2, "max_tokens": 700}
CLAUDE_QUICK: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 500}
CLAUDE_THOROUGH: dict[str, Any] = {"model": "claude-sonnet-5", "max_tokens": 900}


def workflow() -> Workflow:
    """Build the workflow with the modules HR, Finance, Inventory and Compliance."""
    return Workflow(
        name="erp_example",
        description="HR, Finance, Inventory and Compliance, from documents to one summary",
        agents=[*_hr(), *_finance(), *_inventory(), *_compliance()],
        max_parallel_agents=6,
        cost_budget=2.0,
        timeout=900,
    )


def _hr() -> list[Agent]:
    return [
        Agent(
            name="resume_parser",
            module="HR",
            description="Turns a resume into data",
            llm_config=QUICK,
            prompt_template=(
                "Read this resume.\n\n{resume}\n\nRespond with JSON only, with the keys "
                "candidate_name, email, location, years_of_experience, skills and "
                "last_position."
            ),
            cost_limit=0.1,
        ),
        Agent(
            name="resume_screener",
            module="HR",
            description="Compares the candidate with the position",
            llm_config=CLAUDE_QUICK,
            prompt_template=(
                "Compare this candidate with the position, on skills and experience only.\n\n"
                "Candidate: {resume_parser}\n\n{job}\n\n"
                "Respond with JSON only, with the keys match_ratio, recommendation, reasons "
                "and questions."
            ),
            dependencies=["resume_parser"],
            cost_limit=0.1,
        ),
        Agent(
            name="interview_scheduler",
            module="HR",
            description="Proposes the interviews",
            llm_config=QUICK,
            prompt_template=(
                "Propose interviews for {resume_parser.candidate_name} "
                "({resume_parser.email}), who was screened as follows: {resume_screener}\n\n"
                "Choose from the free slots and interviewers here, one slot each, and write the "
                "invitation in at most five sentences.\n\n{job}"
            ),
            dependencies=["resume_parser", "resume_screener"],
            cost_limit=0.1,
        ),
    ]


def _finance() -> list[Agent]:
    return [
        Agent(
            name="invoice_processor",
            module="Finance",
            description="Turns an invoice into data",
            llm_config=QUICK,
            prompt_template=(
                "Read this invoice and check that its lines add up.\n\n{invoice}\n\n"
                "Respond with JSON only, with the keys invoice_number, vendor, purchase_order, "
                "due_date, currency, subtotal, tax, total and is_valid."
            ),
            priority=8,
            cost_limit=0.1,
        ),
        Agent(
            name="payment_planner",
            module="Finance",
            description="Decides when and how to pay",
            llm_config=THOROUGH,
            prompt_template=(
                "Plan the payment of this invoice: take the discount if it is worth it, and name "
                "the approvals that the policy asks for.\n\nInvoice: {invoice_processor}\n\n"
                "{policy}\n\nRespond with JSON only, with the keys payment_date, total_amount, "
                "discount, approvals and reason."
            ),
            dependencies=["invoice_processor"],
            cost_limit=0.1,
        ),
        Agent(
            name="reconciler",
            module="Finance",
            description="Matches invoice, order, receipt and payment",
            llm_config=CLAUDE_THOROUGH,
            prompt_template=(
                "Reconcile the invoice {invoice_processor.invoice_number} of "
                "{invoice_processor.vendor} over {invoice_processor.total} with these entries, "
                "and with the planned payment of {payment_planner.total_amount}. List every "
                "difference, and every entry that has no partner.\n\n{ledger}"
            ),
            dependencies=["invoice_processor", "payment_planner"],
            cost_limit=0.1,
        ),
    ]


def _inventory() -> list[Agent]:
    return [
        Agent(
            name="stock_analyst",
            module="Inventory",
            description="Finds what runs out, and when",
            llm_config=CLAUDE_QUICK,
            prompt_template=(
                "For each article, compute how many days the free stock (on hand less reserved) "
                "lasts, and compare it with lead time and safety stock.\n\n{stock}\n\n"
                "Respond with JSON only, with the keys critical_items, days_of_stock, "
                "stock_value and summary."
            ),
            cost_limit=0.1,
        ),
        Agent(
            name="reorder_optimizer",
            module="Inventory",
            description="Decides what to order, and how much",
            llm_config=THOROUGH,
            prompt_template=(
                "Propose reorders that bring each critical article to 45 days of stock, at the "
                "lowest cost of ordering and holding.\n\nAnalysis: {stock_analyst}\n\n{stock}\n\n"
                "Respond with JSON only, with the keys items, quantity, order_value and reason."
            ),
            dependencies=["stock_analyst"],
            cost_limit=0.1,
        ),
        Agent(
            name="supplier_selector",
            module="Inventory",
            description="Chooses the suppliers",
            llm_config=CLAUDE_THOROUGH,
            prompt_template=(
                "Choose a supplier for each reorder by price, lead time and reliability. "
                "{invoice_processor.vendor} has an open invoice of {invoice_processor.total}; "
                "mind the limit per supplier in the policy.\n\nReorders: {reorder_optimizer}\n\n"
                "{suppliers}\n\n{policy}\n\nRespond with JSON only, with the keys supplier, "
                "order_value, lead_time_days and reason."
            ),
            dependencies=["reorder_optimizer", "invoice_processor"],
            cost_limit=0.1,
        ),
    ]


def _compliance() -> list[Agent]:
    return [
        Agent(
            name="policy_checker",
            module="Compliance",
            description="Checks the decisions of all modules against the policy",
            llm_config=CLAUDE_THOROUGH,
            prompt_template=(
                "Check these decisions against each section of the policy.\n\n"
                "Screening: {resume_screener}\nPayment: {payment_planner}\n"
                "Reconciliation: {reconciler}\nSuppliers: {supplier_selector}\n\n{policy}\n\n"
                "Respond with JSON only, with the keys is_compliant, violations, severity and "
                "actions."
            ),
            dependencies=["resume_screener", "payment_planner", "reconciler", "supplier_selector"],
            priority=7,
            cost_limit=0.2,
        ),
        Agent(
            name="audit_reporter",
            module="Compliance",
            description="Writes the audit report",
            llm_config=THOROUGH,
            prompt_template=(
                "Write an audit report of at most ten sentences: what was decided, by which "
                "agent, on what grounds, and what is open. Mask contact details and bank "
                "accounts.\n\nPolicy check: {policy_checker}\n\nReconciliation: {reconciler}\n\n"
                "Reorders: {reorder_optimizer}"
            ),
            dependencies=["policy_checker", "reconciler", "reorder_optimizer"],
            cost_limit=0.2,
        ),
        Agent(
            name="executive_summary",
            module="General",
            description="One page for the management",
            llm_config=CLAUDE_THOROUGH,
            prompt_template=(
                "Summarise the day for the management in five sentences. Begin with the "
                "decisions that need a signature.\n\nInterviews: {interview_scheduler}\n\n"
                "Suppliers: {supplier_selector}\n\nAudit: {audit_reporter}"
            ),
            dependencies=["interview_scheduler", "supplier_selector", "audit_reporter"],
            cost_limit=0.2,
        ),
    ]


#: ``agentchord run`` takes WORKFLOW and INPUT from this file.
WORKFLOW = workflow()


def main() -> None:
    """Run the workflow, and print the summary and the cost of each module."""
    run = enqueue(WORKFLOW, INPUT)
    print(f"run {run.id}: {run.wait(timeout=300)}, ${run.cost:f}")
    modules: dict[str, float] = {}
    for result in run.results.values():
        module = result.metadata["module"]
        modules[module] = modules.get(module, 0.0) + result.cost
    for module, cost in modules.items():
        print(f"{module:<12} ${cost:.6f}")
    print(f"\n{run.outputs.get('executive_summary')}")


if __name__ == "__main__":
    main()
