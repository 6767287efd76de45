"""The tables as SQLAlchemy models; Alembic compares the migrations with these models.

Rules that must never be broken are constraints: CHECK for money and states, UNIQUE for "exactly
once". The models have no relationships, because every statement names the columns that it reads.
The file is over 400 lines because a schema is read as a whole.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.domain.status import AgentStatus, WorkflowStatus

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
USD = Numeric(20, 10)
BUDGET_SCOPES = ("run", "workflow", "module", "tenant", "all")
STANDING_SCOPES = BUDGET_SCOPES[1:]
BUDGET_PERIODS = ("none", "day", "month")
COST_KINDS = ("actual", "estimated", "unconfirmed", "correction", "cached")
ATTEMPT_OUTCOMES = (
    *("running", "completed", "failed", "cancelled", "handed_back", "lost"),
    "replaced",  # the attempt was accepted, and a retry has put a later attempt in its place
)
TOOL_STATES = ("running", "completed", "failed", "unknown")


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


class Table(DeclarativeBase):
    """Base of the models, with one naming convention, JSONB and timestamps with a time zone."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy reads it as a class attribute
        str: Text,
        Decimal: USD,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
        list[int]: ARRAY(Integer),
    }


class Spending:
    """The columns of all rows that have a limit in dollars.

    Only two things raise ``overdrawn_usd``: the booking of a fact (usage above its hold, or a
    repricing), and a lower limit. A hold never raises ``overdrawn_usd``, so the CHECK makes it
    impossible to commit a hold above the limit.
    """

    limit_usd: Mapped[Decimal]
    spent_usd: Mapped[Decimal] = mapped_column(server_default=text("0"))
    held_usd: Mapped[Decimal] = mapped_column(server_default=text("0"))
    overdrawn_usd: Mapped[Decimal] = mapped_column(server_default=text("0"))


class WorkflowVersion(Table):
    """A version of a registered workflow; the same content is stored only once."""

    __tablename__ = "workflows"
    __table_args__ = (
        UniqueConstraint("name", "version"),
        UniqueConstraint("name", "content_hash"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int]
    content_hash: Mapped[str]
    definition: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Run(Table):
    """One execution of a workflow on one input."""

    __tablename__ = "runs"
    __table_args__ = (
        CheckConstraint(_one_of("status", tuple(WorkflowStatus)), name="status"),
        CheckConstraint(_one_of("stop_as", ("cancelled", "failed")), name="stop_as"),
        CheckConstraint("max_parallel_agents >= 1", name="max_parallel_agents"),
        CheckConstraint("weight > 0", name="weight"),
        CheckConstraint(
            "(finished_at IS NULL) = (status IN ('pending', 'running', 'paused'))", name="finished"
        ),
        # A run that is being stopped is neither paused nor pending.
        CheckConstraint("stop_as IS NULL OR status NOT IN ('pending', 'paused')", name="stopping"),
        # A paused run has no deadline, because its timeout does not run.
        CheckConstraint("status <> 'paused' OR deadline_at IS NULL", name="paused"),
        CheckConstraint("pruned_at IS NULL OR finished_at IS NOT NULL", name="pruned"),
        CheckConstraint("(key IS NULL) = (input_hash IS NULL)", name="key"),
        CheckConstraint("(rerun_of IS NULL) = (rerun_from IS NULL)", name="rerun"),
        CheckConstraint("(parent_agent_run_id IS NULL) = (ancestors = '{}')", name="ancestors"),
        # An agent run has only one run of its sub-workflow; a retry of the agent run retries this
        # run.
        Index(
            "uq_runs_parent_agent_run_id",
            "parent_agent_run_id",
            unique=True,
            postgresql_where="parent_agent_run_id IS NOT NULL",
        ),
        Index(
            "ix_runs_ancestors",
            "ancestors",
            postgresql_using="gin",
            postgresql_where="ancestors <> '{}'",
        ),
        # The inner runs of an outermost run, for the views of whole runs.
        Index("ix_runs_outermost", text("(ancestors[1])"), postgresql_where="ancestors <> '{}'"),
        Index("uq_runs_key", "key", unique=True, postgresql_where="key IS NOT NULL"),
        Index("ix_runs_rerun_of", "rerun_of", postgresql_where="rerun_of IS NOT NULL"),
        Index("ix_runs_prunable", "finished_at", postgresql_where="pruned_at IS NULL"),
        Index(
            "ix_runs_pending", text("priority DESC"), "id", postgresql_where="status = 'pending'"
        ),
        Index("ix_runs_running", "id", postgresql_where="status = 'running'"),
        # The short ids by which commands name runs.
        Index("ix_runs_short_id", text('"right"(id::text, 8)')),
        # The filters of lists, which have no inner runs. Reports of costs by label need inner runs.
        Index(
            "ix_runs_workflow_id",
            "workflow_id",
            "id",
            postgresql_where="parent_agent_run_id IS NULL",
        ),
        Index(
            "ix_runs_tenant",
            "tenant",
            "id",
            postgresql_where="tenant IS NOT NULL AND parent_agent_run_id IS NULL",
        ),
        Index(
            "ix_runs_labels", "labels", postgresql_using="gin", postgresql_where="labels <> '{}'"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    workflow_id: Mapped[UUID] = mapped_column(ForeignKey("workflows.id"))
    status: Mapped[str] = mapped_column(server_default="pending")
    input: Mapped[dict[str, Any]]
    priority: Mapped[int]
    # The tenant for which the run is executed; budgets and reports can be limited to one tenant.
    tenant: Mapped[str | None]
    # The run's share of a rate limit, relative to the other runs that wait for the same limit.
    weight: Mapped[float] = mapped_column(server_default=text("1"))
    level: Mapped[int] = mapped_column(server_default=text("0"))
    level_count: Mapped[int]
    # The number of retries of the run; each retry begins a new round.
    round: Mapped[int] = mapped_column(server_default=text("0"))
    max_parallel_agents: Mapped[int]
    allow_partial_completion: Mapped[bool]
    timeout_s: Mapped[float]
    deadline_at: Mapped[datetime | None]
    # The seconds of the timeout that were left when the run was paused; these seconds apply after a
    # resume.
    time_left_s: Mapped[float | None]
    # The state in which the run has to end, and the reason; the first cancel or timeout sets the
    # state and the reason.
    stop_as: Mapped[str | None]
    stop_reason: Mapped[str | None]
    error: Mapped[str | None]
    # The key that the client gave, and the hash of the input; a second enqueue with the same key
    # finds the run.
    key: Mapped[str | None]
    input_hash: Mapped[str | None]
    # For a rerun: the run whose results the rerun took over, and the agent from which the rerun
    # starts.
    rerun_of: Mapped[UUID | None]
    rerun_from: Mapped[str | None]
    # For the run of a sub-workflow: the agent run that the inner run will end, and the outer runs,
    # outermost first. The holds and costs of the inner run are also booked on the budgets of all
    # outer runs.
    parent_agent_run_id: Mapped[UUID | None]
    ancestors: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default=text("'{}'"))
    # Texts by key, which never change; an inner run has the labels of the outer run.
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # The time at which the run's input, outputs and history were removed.
    pruned_at: Mapped[datetime | None]


class AgentRun(Spending, Table):
    """One agent inside one run; ``limit_usd`` is the agent's cost_limit."""

    __tablename__ = "agent_runs"
    __table_args__ = (
        UniqueConstraint("run_id", "name"),
        CheckConstraint(_one_of("status", tuple(AgentStatus)), name="status"),
        CheckConstraint("spent_usd + held_usd <= limit_usd + overdrawn_usd", name="within_limit"),
        CheckConstraint("held_usd >= 0 AND overdrawn_usd >= 0", name="not_negative"),
        CheckConstraint(
            "(status = 'running') = (worker IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name="running_has_lease",
        ),
        CheckConstraint("(parent_id IS NULL) = (item_index IS NULL)", name="item"),
        CheckConstraint("parent_id IS NULL OR item_count IS NULL", name="items_have_no_items"),
        Index(
            "uq_agent_runs_parent_id_item_index",
            "parent_id",
            "item_index",
            unique=True,
            postgresql_where="parent_id IS NOT NULL",
        ),
        Index(
            "ix_agent_runs_pending",
            "run_id",
            "level",
            "provider",
            text("priority DESC"),
            "position",
            postgresql_where="status = 'pending'",
        ),
        Index("ix_agent_runs_running", "run_id", "level", postgresql_where="status = 'running'"),
        # An index for agents that were given back; new and claimed agents do not need it.
        Index(
            "ix_agent_runs_given_back",
            "ready_at",
            postgresql_where="status = 'pending' AND attempt > 0",
        ),
        Index("ix_agent_runs_waiting", "run_id", "level", postgresql_where="status = 'waiting'"),
        {"postgresql_with": {"fillfactor": "70"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    name: Mapped[str]
    position: Mapped[int]
    level: Mapped[int]
    module: Mapped[str]
    provider: Mapped[str]
    model: Mapped[str]
    priority: Mapped[int]
    dependencies: Mapped[list[str]]
    # Names of the agents whose outputs the prompt reads; these agents are direct or indirect
    # dependencies.
    reads: Mapped[list[str]]
    accept_missing_inputs: Mapped[bool]
    # For an element of a for_each: the agent run of the list, the element's index from 0, and the
    # element itself.
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agent_runs.id", ondelete="CASCADE"))
    item_index: Mapped[int | None]
    item: Mapped[Any | None] = mapped_column(JSONB)
    # For an agent with a for_each: the length of the list, as soon as the list is known.
    item_count: Mapped[int | None]
    status: Mapped[str] = mapped_column(server_default="pending")
    # Grows with every claim, so (id, attempt) is the fencing token of all later writes.
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    worker: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    ready_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # The limit, budget or circuit for which the agent run was given back until ready_at.
    waits_for: Mapped[str | None]
    retries: Mapped[int] = mapped_column(server_default=text("0"))
    recoveries: Mapped[int] = mapped_column(server_default=text("0"))
    output: Mapped[Any | None] = mapped_column(JSONB)
    error: Mapped[str | None]
    error_class: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # A hash of the attachments that the first attempt has sent; later attempts send the same bytes.
    attached: Mapped[str | None]
    # The round of the run in which the agent run was last claimed, and the round in which its
    # output last became another one. If a dependency has changed in a later round, the agent run's
    # result rests on an old input.
    round: Mapped[int] = mapped_column(server_default=text("0"))
    changed_in: Mapped[int] = mapped_column(server_default=text("0"))
    # A hash of the values from which the result was made; with equal values, no call is made again.
    seen: Mapped[str | None]
    # While the agent run runs again: {"output": the last accepted output}.
    kept: Mapped[Any | None] = mapped_column(JSONB)


class Attempt(Table):
    """One try of an agent run."""

    __tablename__ = "attempts"
    __table_args__ = (CheckConstraint(_one_of("outcome", ATTEMPT_OUTCOMES), name="outcome"),)

    agent_run_id: Mapped[UUID] = mapped_column(
        ForeignKey("agent_runs.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    outcome: Mapped[str] = mapped_column(server_default="running")
    error: Mapped[str | None]
    error_class: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    # Seconds from the attempt's first request to the first token, if the answer was streamed.
    first_token_s: Mapped[float | None]
    # The way in which the model's last answer ended, such as stop, length or empty; null if the
    # attempt ended without an answer.
    finish_reason: Mapped[str | None]


class Turn(Table):
    """An answer of a model that asked for tools; a new attempt continues from the stored turns.

    ``message`` is JSON but is stored as text, because a provider must get back its own blocks, byte
    for byte.
    """

    __tablename__ = "turns"
    __table_args__ = (UniqueConstraint("agent_run_id", "attempt", "number"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    agent_run_id: Mapped[UUID] = mapped_column(ForeignKey("agent_runs.id", ondelete="CASCADE"))
    number: Mapped[int]
    attempt: Mapped[int]
    # Id of the call that returned the answer, as in the ledger.
    call_id: Mapped[UUID | None]
    message: Mapped[str]
    # Whether a retry of the agent has replaced the turn's conversation with a new conversation.
    set_aside: Mapped[bool] = mapped_column(server_default=text("false"))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ToolCall(Table):
    """A tool call that a turn requested, with its state; the row is written before the tool starts.

    ``result`` is the text for the model. A tool call is ``unknown`` if no process saw the end of
    the tool call, because the worker died or because the tool call was stopped.
    """

    __tablename__ = "tool_calls"
    __table_args__ = (
        CheckConstraint(_one_of("state", TOOL_STATES), name="state"),
        CheckConstraint("(result IS NOT NULL) = (state IN ('completed', 'failed'))", name="result"),
        Index(None, "agent_run_id"),
    )

    turn_id: Mapped[UUID] = mapped_column(
        ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    agent_run_id: Mapped[UUID]
    # The last attempt that started the tool call.
    attempt: Mapped[int]
    # The provider's id of the tool call.
    call_id: Mapped[str]
    tool: Mapped[str]
    arguments: Mapped[str]
    state: Mapped[str]
    result: Mapped[str | None]
    seconds: Mapped[float | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    finished_at: Mapped[datetime | None]


class StandingBudget(Table):
    """A budget that an operator set and that outlives runs; ``budgets`` has an account per period.

    ``subject`` is the name of the workflow, module or tenant; for the scope ``all``, ``subject`` is
    empty.
    """

    __tablename__ = "standing_budgets"
    __table_args__ = (
        CheckConstraint(_one_of("scope", STANDING_SCOPES), name="scope"),
        CheckConstraint(_one_of("period", BUDGET_PERIODS), name="period"),
        CheckConstraint("limit_usd >= 0", name="limit_usd"),
        CheckConstraint("start_hour BETWEEN 0 AND 23 AND start_day BETWEEN 1 AND 28", name="start"),
    )

    scope: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    period: Mapped[str] = mapped_column(primary_key=True)
    limit_usd: Mapped[Decimal]
    soft: Mapped[bool]
    thresholds: Mapped[list[int]]
    # The hour and the day of the month, in UTC, at which the budget's days and months begin.
    start_hour: Mapped[int]
    start_day: Mapped[int]
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Budget(Spending, Table):
    """The account of a limit that several agents share; a run's budget has the run's id.

    A standing budget has one account per period. The first hold of a period makes the account.
    """

    __tablename__ = "budgets"
    __table_args__ = (
        UniqueConstraint(
            "scope", "subject", "period", "period_start", postgresql_nulls_not_distinct=True
        ),
        Index("ix_budgets_counted_to", "counted_to", postgresql_where="counted_to IS NOT NULL"),
        CheckConstraint(_one_of("scope", BUDGET_SCOPES), name="scope"),
        CheckConstraint(_one_of("period", BUDGET_PERIODS), name="period"),
        CheckConstraint(
            "soft OR spent_usd + held_usd <= limit_usd + overdrawn_usd", name="within_limit"
        ),
        CheckConstraint("held_usd >= 0 AND overdrawn_usd >= 0", name="not_negative"),
        {"postgresql_with": {"fillfactor": "50"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    scope: Mapped[str]
    subject: Mapped[str]
    period: Mapped[str] = mapped_column(server_default="none")
    period_start: Mapped[datetime | None]
    soft: Mapped[bool] = mapped_column(server_default=text("false"))
    # No hold is placed on a closed budget. A cancel closes the run's budget. The placing of a hold
    # locks the row of this budget. Therefore no call can start after cancel() has returned.
    closed: Mapped[bool] = mapped_column(server_default=text("false"))
    # No hold is placed on a paused budget either; when the run is resumed, this column is false
    # again.
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    # The percentages of the limit at which the history gets an event, and the highest percentage
    # that the spending has passed.
    thresholds: Mapped[list[int]] = mapped_column(server_default=text("'{50,80,100}'"))
    reached: Mapped[int] = mapped_column(server_default=text("0"))
    # Whether holds may be waiting for the budget; the queue is read only if this column is true.
    awaited: Mapped[bool] = mapped_column(server_default=text("false"))
    # If the budget counts from the start of its period: the last entry of the ledger that was
    # counted when the budget was set. Entries up to this one do not name the budget.
    counted_to: Mapped[int | None] = mapped_column(BigInteger)


class Hold(Table):
    """Money that is reserved for a call; the settlement of the call deletes the row."""

    __tablename__ = "holds"
    __table_args__ = (
        CheckConstraint("amount_usd >= 0", name="amount"),
        Index(None, "agent_run_id"),
    )

    call_id: Mapped[UUID] = mapped_column(primary_key=True)
    agent_run_id: Mapped[UUID] = mapped_column(ForeignKey("agent_runs.id"))
    attempt: Mapped[int]
    budget_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    amount_usd: Mapped[Decimal]
    # The called provider and model, because a fallback's model differs from the agent run's model.
    # Both columns are null in rows of older versions.
    provider: Mapped[str | None]
    model: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WaitingHold(Table):
    """A hold that waits until other holds are settled; the row has the hold's place in the queue.

    A row counts only while its agent run still waits. Therefore the places of a dead worker's
    agents are free when the leases of these agents have been taken away. The table needs no index
    on the budgets, because the table is only as long as the queue.
    """

    __tablename__ = "hold_queue"

    agent_run_id: Mapped[UUID] = mapped_column(
        ForeignKey("agent_runs.id", ondelete="CASCADE"), primary_key=True
    )
    call_id: Mapped[UUID]
    attempt: Mapped[int]
    ticket: Mapped[int] = mapped_column(BigInteger, Identity())
    budget_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    amount_usd: Mapped[Decimal]
    since: Mapped[datetime] = mapped_column(server_default=func.now())


class StoredLimits(Table):
    """Rate limits that an operator changed; each stored key overrides the configuration.

    ``model`` is a name, a pattern or ``default``.
    """

    __tablename__ = "rate_limits"

    provider: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    limits: Mapped[dict[str, Any]]
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CostEntry(Table):
    """A line of the ledger. Lines never change: a trigger refuses UPDATE, DELETE and TRUNCATE.

    The table has no foreign keys and repeats the names that the reports need, because runs and
    workflows are pruned, but the ledger is never pruned.
    """

    __tablename__ = "cost_entries"
    __table_args__ = (
        CheckConstraint(_one_of("kind", COST_KINDS), name="kind"),
        # Except for corrections, a call has only one entry of each kind, even if the call is
        # recorded twice.
        Index(
            "uq_cost_entries_call_id_kind",
            "call_id",
            "kind",
            unique=True,
            postgresql_where="kind <> 'correction'",
        ),
        Index("ix_cost_entries_corrections", "call_id", postgresql_where="kind = 'correction'"),
        Index(None, "run_id"),
        Index(None, "created_at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    call_id: Mapped[UUID]
    run_id: Mapped[UUID]
    agent_run_id: Mapped[UUID]
    attempt: Mapped[int]
    workflow_id: Mapped[UUID]
    workflow: Mapped[str]
    # The workflow's version; null in rows of older AgentChord versions and for spending outside a
    # run.
    version: Mapped[int | None]
    tenant: Mapped[str | None]
    agent: Mapped[str]
    module: Mapped[str]
    provider: Mapped[str]
    model: Mapped[str]
    model_answered: Mapped[str | None]
    kind: Mapped[str]
    # "ok", or the error class of a call that reached the provider and failed there.
    outcome: Mapped[str]
    request_id: Mapped[str | None]
    input_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    cached_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    cache_write_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    cache_write_1h_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    output_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    reasoning_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    citation_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    web_searches: Mapped[int] = mapped_column(server_default=text("0"))
    # The longest time for which containers may be billed; no answer tells the real time.
    container_seconds: Mapped[int] = mapped_column(server_default=text("0"))
    usage: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    # The service tier, speed and region in which the provider served the call, as far as the answer
    # names these facts. The column is null in rows of older AgentChord versions and for calls
    # without an answer.
    served: Mapped[dict[str, Any] | None]
    price_version: Mapped[str | None]
    # The shared budgets on which the entry was booked; a later correction is booked on the same
    # budgets.
    budget_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    cost_usd: Mapped[Decimal]
    # The money that the provider's cache or AgentChord's cache of answers has saved. The amount is
    # negative if the writing to the cache has cost more than the cache has saved so far.
    saved_usd: Mapped[Decimal] = mapped_column(server_default=text("0"))
    # Seconds from the request to the end of the answer; null if no process saw the end.
    seconds: Mapped[float | None] = mapped_column(REAL)
    # The kind of the guess that a correction takes back; null for a correction after a change of
    # prices.
    corrects: Mapped[str | None]
    # Two values for the number of the prompt's tokens, both from before the call. The first column
    # is an estimate, which the limits use. The second column is an upper bound, which the hold
    # uses.
    expected_tokens: Mapped[int | None]
    bound_tokens: Mapped[int | None]
    # The reason why the answer ended: stop, length, tool_calls or content_filter; null if no answer
    # came.
    finish_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class CostTotal(Table):
    """Sums of the ledger by day; a trigger keeps the sums exact in the transaction of each entry.

    A transaction adds its sums to a shard that no other transaction holds, so transactions do not
    wait for the rows of other transactions.
    """

    __tablename__ = "cost_totals"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)

    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    # A digest of the columns from ``day`` to ``outcome``, because the names in these columns may be
    # too long for an index.
    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    day: Mapped[date]
    tenant: Mapped[str | None]
    workflow: Mapped[str]
    version: Mapped[int | None]
    module: Mapped[str]
    provider: Mapped[str]
    model: Mapped[str]
    kind: Mapped[str]
    outcome: Mapped[str]
    calls: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    cache_write_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    cost_usd: Mapped[Decimal]
    wasted_usd: Mapped[Decimal]
    unconfirmed_usd: Mapped[Decimal]
    saved_usd: Mapped[Decimal]


class Event(Table):
    """One line of a run's history."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "run_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    agent_run_id: Mapped[UUID | None]
    attempt: Mapped[int | None]
    type: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class RecordedEvent(Table):
    """An event that a program itself recorded; the event does not have to belong to a run."""

    __tablename__ = "recorded_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    type: Mapped[str]
    agent_id: Mapped[str | None]
    workflow_id: Mapped[str | None]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ClusterKey(Table):
    """A secret key that the workers share, such as the key that signs answers in Redis."""

    __tablename__ = "cluster_keys"

    name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[bytes]


class WorkerLoad(Table):
    """The names of the tools, functions and kinds that a worker loads, with its queues."""

    __tablename__ = "worker_loads"

    worker: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str]
    loaded: Mapped[dict[str, Any]]
    seen_at: Mapped[datetime]
