"""The smallest useful workflow: three agents in a row. The second agent uses a tool.

To run it: agentchord run app.examples.basic --follow
"""

from app import Agent, Workflow, enqueue
from app.examples import document
from app.examples.tools import check_total

INPUT = {"order": document("order.txt")}


def workflow() -> Workflow:
    """Build the workflow; its agents read, check and report on an order from an e-mail."""
    data_extractor = Agent(
        name="data_extractor",
        module="General",
        description="Reads the order out of the e-mail",
        llm_config={"model": "gpt-4o-mini", "temperature": 0.0, "max_tokens": 300},
        prompt_template=(
            "Read the order in this e-mail.\n\n{order}\n\n"
            "Respond with JSON only, with the keys order_number, customer, item, quantity, "
            "unit_price, total and delivery_date."
        ),
        cost_limit=0.05,
    )
    data_validator = Agent(
        name="data_validator",
        module="General",
        description="Checks that the order adds up",
        llm_config={"model": "gpt-4o-mini", "temperature": 0.0, "max_tokens": 300},
        prompt_template=(
            "Use check_total to check this order, then say in two sentences whether it can be "
            "accepted and why.\n\n"
            "quantity: {data_extractor.quantity}\n"
            "unit_price: {data_extractor.unit_price}\n"
            "total: {data_extractor.total}"
        ),
        tools=[check_total],
        dependencies=["data_extractor"],
        cost_limit=0.05,
    )
    report_generator = Agent(
        name="report_generator",
        module="General",
        description="Writes the report",
        llm_config={"model": "claude-haiku-4-5", "max_tokens": 400},
        prompt_template=(
            "Write a report of four sentences on this order for the sales team.\n\n"
            "Order: {data_extractor}\n\nCheck: {data_validator}"
        ),
        dependencies=["data_extractor", "data_validator"],
        cost_limit=0.05,
    )
    return Workflow(
        name="basic_example",
        description="Data extractor, data validator, report generator",
        agents=[data_extractor, data_validator, report_generator],
        cost_budget=0.25,
        timeout=300,
    )


#: ``agentchord run`` takes WORKFLOW and INPUT from this file.
WORKFLOW = workflow()


def main() -> None:
    """Run the workflow and print the outputs."""
    run = enqueue(WORKFLOW, INPUT)
    print(f"run {run.id}: {run.wait(timeout=120)}, ${run.cost:f}")
    for name, output in run.outputs.items():
        print(f"\n{name}:\n{output}")


if __name__ == "__main__":
    main()
