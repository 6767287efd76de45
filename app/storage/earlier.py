"""Reads the figures of agents in earlier runs from the ledger."""

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.earlier import LEAST_RUNS, Earlier, EarlierAgent
from app.domain.kinds import LLM
from app.domain.sub_workflow import all_workflows
from app.domain.workflow import Workflow

#: Number of the newest runs that are read.
MOST_RUNS = 50

# An execution counts only with the calls of its last attempt, so retries do not count. A run in
# which an agent made no call still counts, as a run with 0 executions.
READ: TextClause = text("""
    WITH recent AS (
        SELECT r.id FROM runs r JOIN workflows w ON w.id = r.workflow_id
        WHERE w.name = :workflow AND r.status IN ('completed', 'partially_completed')
        ORDER BY r.id DESC LIMIT :most_runs
    ), executions AS (
        SELECT c.run_id, split_part(c.agent, '[', 1) AS agent, c.model, count(*) AS calls,
            sum(c.input_tokens + c.cached_tokens + c.cache_write_tokens + c.cache_write_1h_tokens)
                AS input, sum(c.output_tokens) AS output, sum(c.reasoning_tokens) AS reasoning
        FROM cost_entries c JOIN recent ON recent.id = c.run_id
        JOIN agent_runs a ON a.id = c.agent_run_id
        WHERE c.kind IN ('actual', 'estimated') AND c.outcome = 'ok' AND a.status = 'completed'
            AND a.attempt = c.attempt
        GROUP BY c.run_id, 2, c.model, c.agent_run_id
    ), answers AS (
        SELECT agent, model, count(*) AS answers, avg(calls)::float AS calls,
            avg(input)::float AS input_tokens, avg(output)::float AS output_tokens,
            coalesce(stddev_samp(output), 0)::float AS output_sd,
            avg(reasoning)::float AS reasoning_tokens
        FROM executions GROUP BY 1, 2
    ), counts AS (
        SELECT agent, model, sum(n)::float / (SELECT count(*) FROM recent) AS executions,
            sum(n::float * n) / (SELECT count(*) FROM recent) AS squares
        FROM (SELECT run_id, agent, model, count(*) AS n FROM executions GROUP BY 1, 2, 3) each_run
        GROUP BY 1, 2
    )
    SELECT agent, model, (SELECT count(*) FROM recent) AS runs, answers, executions,
        sqrt(greatest(squares - executions * executions, 0)) AS executions_sd,
        calls, input_tokens, output_tokens, output_sd, reasoning_tokens
    FROM answers JOIN counts USING (agent, model)
""")


async def read_earlier(connection: AsyncConnection, workflow: Workflow) -> Earlier:
    """Return the figures of a workflow's agents, and of the agents of its sub-workflows."""
    found: dict[tuple[str, str], EarlierAgent] = {}
    known = {each.name: each for each in all_workflows(workflow)}
    for name, each in known.items():
        models = {agent.name: agent.model for agent in each.agents if agent.kind == LLM}
        rows = await connection.execute(READ, {"workflow": name, "most_runs": MOST_RUNS})
        for row in rows.mappings():
            figures = dict(row)
            agent, model = figures.pop("agent"), figures.pop("model")
            if models.get(agent) == model and figures["runs"] >= LEAST_RUNS:
                found[name, agent] = EarlierAgent(**figures)
    return found
