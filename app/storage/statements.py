"""The statements of the hot path, in the order in which an agent needs them.

Most statements take a whole batch as one JSON document. Therefore the SQL of a statement never
changes, and the plan of the statement is prepared only once. Locks are always taken in the same
order: first runs, then agent runs, then budgets, and each of these in the order of the ids. One
statement locks the rows. A later statement decides. Two statements are necessary because, under
READ COMMITTED, a statement that had to wait for a lock has a snapshot that is older than the lock.
"""

from sqlalchemy import TextClause, text

# ---- claim: ready agents start running, with an attempt, a worker and a lease ------------------

LOCK_RUNS: TextClause = text("""
    SELECT id FROM runs WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE
""")

# requests: [{run_id, level, provider, width}], one request per run. At most max_parallel_agents
# agents of a run are in progress. This limit is exact, because the run's row is locked while the
# agents are counted. An agent is a suspect if the loss of one more worker would quarantine the
# agent. A worker has only one suspect at a time, so that a suspect that kills its worker does not
# harm other suspects. This rule is exact, because a process never executes two claims at the same
# time.
CLAIM: TextClause = text("""
    WITH room AS (
        SELECT q.*, runs.round, runs.max_parallel_agents - (
            SELECT count(*) FROM agent_runs busy
            WHERE busy.run_id = q.run_id AND busy.status = 'running'
        ) AS free
        FROM jsonb_to_recordset(CAST(:requests AS jsonb))
            AS q(run_id uuid, level int, provider text, width int)
        JOIN runs ON runs.id = q.run_id
        WHERE runs.status = 'running' AND runs.level = q.level AND runs.stop_as IS NULL
    ), usual AS (
        SELECT room.run_id, room.round, ready.id FROM room CROSS JOIN LATERAL (
            SELECT a.id FROM agent_runs a
            WHERE a.run_id = room.run_id AND a.level = room.level
                AND a.provider = room.provider AND a.status = 'pending' AND a.ready_at <= now()
                AND a.recoveries < :last_chance
            ORDER BY a.priority DESC, a.position
            LIMIT greatest(least(room.width, room.free), 0)
        ) ready
    ), suspect AS (
        SELECT room.round, ready.id FROM room CROSS JOIN LATERAL (
            SELECT a.id FROM agent_runs a
            WHERE a.run_id = room.run_id AND a.level = room.level
                AND a.provider = room.provider AND a.status = 'pending' AND a.ready_at <= now()
                AND a.recoveries >= :last_chance
            ORDER BY a.priority DESC, a.position LIMIT 1
        ) ready
        WHERE room.width > 0 AND room.free > 0
            AND NOT EXISTS (SELECT FROM usual WHERE usual.run_id = room.run_id)
            AND NOT EXISTS (
                SELECT FROM agent_runs busy WHERE busy.status = 'running'
                    AND busy.worker = :worker AND busy.recoveries >= :last_chance
                    AND busy.id <> ready.id  -- so Postgres searches only if there is a suspect
            )
        LIMIT 1
    ), picked AS (
        SELECT id, round FROM usual UNION ALL SELECT id, round FROM suspect
    ), claimed AS (
        UPDATE agent_runs a
        SET status = 'running', attempt = a.attempt + 1, worker = :worker,
            lease_expires_at = clock_timestamp() + make_interval(secs => :lease_s),
            started_at = coalesce(a.started_at, clock_timestamp()), waits_for = NULL,
            round = picked.round
        FROM picked WHERE a.id = picked.id
        RETURNING a.id, a.run_id, a.name, a.attempt, a.retries, a.limit_usd, a.spent_usd, a.reads,
            a.priority, a.position, a.item_index, a.item, a.seen, a.kept, a.round
    ), attempted AS (
        -- now() would be too early, because it is the start of the transaction, and the transaction
        -- may have collected the outputs that these agents read.
        INSERT INTO attempts (agent_run_id, number, worker, started_at)
        SELECT id, attempt, :worker, clock_timestamp() FROM claimed
    ), noted AS (
        INSERT INTO events (run_id, agent_run_id, attempt, type, data)
        SELECT run_id, id, attempt, 'agent_started', jsonb_build_object('agent', name)
        FROM claimed ORDER BY priority DESC, position, item_index
    )
    SELECT c.id, c.run_id, c.name, c.attempt, c.retries, c.limit_usd, c.spent_usd,
        c.item_index, c.item,
        -- EXISTS would let the planner read the whole table.
        c.round > 0 AND coalesce(
            (SELECT true FROM agent_runs i WHERE i.parent_id = c.id LIMIT 1), false
        ) AS expanded,
        CASE WHEN c.kept IS NOT NULL THEN c.seen END AS seen, c.kept -> 'output' AS kept,
        CASE WHEN cardinality(c.reads) > 0 THEN (
            SELECT jsonb_object_agg(d.name, d.output) FROM agent_runs d
            WHERE d.run_id = c.run_id AND d.name = ANY(c.reads)
        ) END AS outputs,
        CASE WHEN c.attempt > 1 THEN (
            SELECT count(*) FROM attempts t
            WHERE t.agent_run_id = c.id AND t.error_class = 'WorkerStopped' AND t.number > coalesce(
                (SELECT max(o.number) FROM attempts o
                WHERE o.agent_run_id = c.id AND o.outcome <> 'handed_back'), 0)
        ) ELSE 0 END AS drained
    FROM claimed c ORDER BY c.priority DESC, c.position, c.item_index
""")

# Finds the agents that are left after the claim. If a run is paused or at another level, a lane
# finds no agents to claim. While a run is being stopped, only its running agents are open. An agent
# that waits for its items is not open, because the step that advances the run collects the items
# after the last item has ended. Suspects are left out. After a worker has finished a suspect, the
# worker claims the next suspect, or else the watchdog sends a lane.
REMAINING: TextClause = text("""
    SELECT q.run_id,
        may.claim AND EXISTS (
            SELECT FROM agent_runs a WHERE a.run_id = q.run_id AND a.level = q.level
                AND a.provider = q.provider AND a.status = 'pending' AND a.ready_at <= now()
                AND a.recoveries < :last_chance
        ) AS more,
        CASE WHEN may.claim THEN (
            SELECT a.provider FROM agent_runs a WHERE a.run_id = q.run_id AND a.level = q.level
                AND a.provider <> q.provider AND a.status = 'pending' AND a.ready_at <= now()
                AND a.recoveries < :last_chance
            LIMIT 1
        ) END AS other_provider,
        (
            SELECT count(*) FROM (
                SELECT FROM agent_runs a WHERE a.run_id = q.run_id AND a.level = q.level
                    AND (a.status = 'running' OR a.status = 'waiting' AND a.item_count IS NULL
                        OR a.status = 'pending' AND runs.stop_as IS NULL)
                LIMIT q.busy + q.width + 1
            ) few
        ) AS open,
        (
            SELECT count(*) FROM agent_runs a
            WHERE a.run_id = q.run_id AND a.status = 'running'
        ) < runs.max_parallel_agents AS room
    FROM jsonb_to_recordset(CAST(:requests AS jsonb))
        AS q(run_id uuid, level int, provider text, width int, busy int)
    JOIN runs ON runs.id = q.run_id
    CROSS JOIN LATERAL (
        SELECT runs.status = 'running' AND runs.level = q.level AND runs.stop_as IS NULL AS claim
    ) may
""")

# ---- hold: the worst case is reserved on all budgets that apply, or on none of them ------------

LOCK_AGENT_RUNS: TextClause = text("""
    SELECT id, attempt, status, limit_usd, spent_usd, held_usd FROM agent_runs
    WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE
""")

LOCK_BUDGETS: TextClause = text("""
    SELECT id, scope, subject, period, soft, closed, paused, awaited, limit_usd, spent_usd, held_usd
    FROM budgets
    WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE
""")

# Finds the calls that have a hold already, and the standing budgets of some subjects. Each standing
# budget comes with its account for the current period; the database's clock decides which period is
# current. One statement reads the calls and the standing budgets, because one statement saves a
# round trip. subjects: [{scope, subject}].
HOLDS_AND_STANDING_BUDGETS: TextClause = text("""
    SELECT (
        SELECT jsonb_agg(call_id) FROM holds WHERE call_id = ANY(CAST(:call_ids AS uuid[]))
    ) AS placed, (
        SELECT jsonb_agg(jsonb_build_object(
            'scope', s.scope, 'subject', s.subject, 'period', s.period, 'account', b.id))
        FROM jsonb_to_recordset(CAST(:subjects AS jsonb)) AS q(scope text, subject text)
        JOIN standing_budgets s ON s.scope = q.scope AND s.subject = q.subject
        LEFT JOIN budgets b ON b.scope = s.scope AND b.subject = s.subject
            AND b.period = s.period AND b.period_start IS NOT DISTINCT FROM
                budget_period_start(s.period, s.start_hour, s.start_day, now())
    ) AS standing
""")

# The first hold of a period makes the accounts of the period. Because of FOR SHARE, a change of the
# limit cannot come at the same time. If the change comes first, this statement reads the new limit.
# If this statement comes first, the change finds the account. The rows are locked in order, so that
# two transactions that make accounts cannot deadlock.
MAKE_ACCOUNTS: TextClause = text("""
    INSERT INTO budgets (id, scope, subject, period, period_start, limit_usd, soft, thresholds)
    SELECT gen_random_uuid(), scope, subject, period,
        budget_period_start(period, start_hour, start_day, now()), limit_usd, soft, thresholds
    FROM (
        SELECT s.* FROM standing_budgets s
        JOIN jsonb_to_recordset(CAST(:subjects AS jsonb)) AS q(scope text, subject text)
            ON s.scope = q.scope AND s.subject = q.subject
        ORDER BY s.scope, s.subject, s.period FOR SHARE OF s
    ) standing
    ON CONFLICT (scope, subject, period, period_start) DO NOTHING
""")

# holds: rows with the columns of the table "holds". budgets: the sums of the holds' amounts by
# budget, because a statement can update a row only once.
PLACE_HOLDS: TextClause = text("""
    WITH placed AS (
        INSERT INTO holds (call_id, agent_run_id, attempt, budget_ids, amount_usd, provider, model)
        SELECT call_id, agent_run_id, attempt, budget_ids, amount_usd, provider, model
        FROM jsonb_to_recordset(CAST(:holds AS jsonb)) AS h(
            call_id uuid, agent_run_id uuid, attempt int, budget_ids uuid[], amount_usd numeric,
            provider text, model text)
        RETURNING agent_run_id, amount_usd
    ), own AS (
        UPDATE agent_runs a SET held_usd = a.held_usd + placed.amount_usd
        FROM placed WHERE a.id = placed.agent_run_id
    )
    UPDATE budgets b SET held_usd = b.held_usd + t.amount_usd
    FROM jsonb_to_recordset(CAST(:budgets AS jsonb)) AS t(id uuid, amount_usd numeric)
    WHERE b.id = t.id
""")

# ---- wait: holds keep their order while they wait until other holds are settled ----------------

# Reads the requests that wait for any of these budgets, in the order of their arrival, with the
# agent runs' accounts. An agent run that was given back keeps its place in the queue, even before
# its next attempt asks for the hold.
READ_QUEUE: TextClause = text("""
    SELECT q.agent_run_id, q.call_id, q.attempt, q.budget_ids, q.amount_usd,
        CASE a.status
            WHEN 'running' THEN a.attempt IN (q.attempt, q.attempt + 1)
            WHEN 'pending' THEN a.attempt = q.attempt AND a.waits_for IS NOT NULL
                AND r.status = 'running' AND r.stop_as IS NULL
            ELSE false
        END AS live,
        a.status = 'pending' AS away, a.limit_usd, a.spent_usd, a.held_usd
    FROM hold_queue q JOIN agent_runs a ON a.id = q.agent_run_id JOIN runs r ON r.id = a.run_id
    WHERE q.budget_ids && CAST(:ids AS uuid[]) ORDER BY q.ticket
""")

READ_BUDGETS: TextClause = text("""
    SELECT id, scope, subject, period, soft, closed, paused, awaited, limit_usd, spent_usd, held_usd
    FROM budgets WHERE id = ANY(CAST(:ids AS uuid[]))
""")

# While a call waits, it keeps its ticket, even if its budgets change. An agent run also keeps its
# ticket if its next attempt asks for the hold again.
CHANGE_QUEUE: TextClause = text("""
    WITH leaving AS (
        DELETE FROM hold_queue q
        USING jsonb_to_recordset(CAST(:leaving AS jsonb)) AS g(agent_run_id uuid, attempt int)
        WHERE q.agent_run_id = g.agent_run_id AND q.attempt = g.attempt
    ), entering AS (
        INSERT INTO hold_queue AS q (agent_run_id, call_id, attempt, budget_ids, amount_usd)
        SELECT agent_run_id, call_id, attempt, budget_ids, amount_usd
        FROM jsonb_to_recordset(CAST(:entering AS jsonb)) AS c(
            agent_run_id uuid, call_id uuid, attempt int, budget_ids uuid[], amount_usd numeric)
        ON CONFLICT (agent_run_id) DO UPDATE SET call_id = excluded.call_id,
            attempt = excluded.attempt, budget_ids = excluded.budget_ids,
            amount_usd = excluded.amount_usd,
            ticket = CASE WHEN q.call_id = excluded.call_id OR q.attempt = excluded.attempt - 1
                THEN q.ticket ELSE excluded.ticket END,
            since = CASE WHEN q.call_id = excluded.call_id OR q.attempt = excluded.attempt - 1
                THEN q.since ELSE excluded.since END
    )
    UPDATE budgets b SET awaited = t.awaited
    FROM jsonb_to_recordset(CAST(:budgets AS jsonb)) AS t(id uuid, awaited bool)
    WHERE b.id = t.id AND b.awaited <> t.awaited
""")

# ---- record: results, cost entries, settled holds and history, in one transaction --------------

TAKE_HOLDS: TextClause = text("""
    DELETE FROM holds WHERE call_id = ANY(CAST(:call_ids AS uuid[]))
    RETURNING call_id, agent_run_id, budget_ids, amount_usd
""")

# The statement has two parts, because corrections and the other kinds have different indexes. The
# budgets of an entry are also the budgets that have counted the entry when they were set.
ENTRIES_OF_CALLS: TextClause = text("""
    SELECT call_id, kind, outcome, budgets_of_entry(e) AS budget_ids, cost_usd, saved_usd,
        input_tokens, cached_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens,
        reasoning_tokens, citation_tokens, web_searches, container_seconds
    FROM cost_entries e WHERE call_id = ANY(CAST(:call_ids AS uuid[])) AND kind <> 'correction'
    UNION ALL
    SELECT call_id, kind, outcome, budgets_of_entry(e) AS budget_ids, cost_usd, saved_usd,
        input_tokens, cached_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens,
        reasoning_tokens, citation_tokens, web_searches, container_seconds
    FROM cost_entries e WHERE call_id = ANY(CAST(:call_ids AS uuid[])) AND kind = 'correction'
""")

# agents: [{id, attempt, held, spent, ended, ...}]; the columns after "ended" describe the ending.
# If an agent goes on with its calls (a tool loop), the record has no ending. In this case, only the
# agent's account changes. entries: lines of the ledger. budgets: [{id, held, spent}], the sums of
# the entries and of their holds by budget. overdrawn_usd is the current excess over the limit, so
# the CHECK is never looser than necessary. A settlement raises overdrawn_usd only if the call cost
# more than its hold. If a batch has several budgets, the caller has locked the budgets in order.
APPLY_RECORDS: TextClause = text("""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(CAST(:agents AS jsonb)) AS g(
            id uuid, attempt int, held numeric, spent numeric, ended bool, run_id uuid,
            status text, outcome text, output jsonb, error text, error_class text,
            ready_in_s float8, waits_for text, retry int, recovery int, first_token_s float8,
            finish_reason text, event text, data jsonb, seen text)
    ), agents AS (
        UPDATE agent_runs a SET
            held_usd = a.held_usd - g.held,
            spent_usd = a.spent_usd + g.spent,
            overdrawn_usd = greatest(a.overdrawn_usd,
                a.spent_usd + g.spent + a.held_usd - g.held - a.limit_usd),
            status = CASE WHEN g.ended THEN g.status ELSE a.status END,
            worker = CASE WHEN g.ended THEN NULL ELSE a.worker END,
            lease_expires_at = CASE WHEN g.ended THEN NULL ELSE a.lease_expires_at END,
            output = CASE WHEN g.ended THEN g.output ELSE a.output END,
            seen = CASE WHEN g.ended AND g.status IN ('completed', 'skipped') THEN g.seen
                ELSE a.seen END,
            kept = CASE WHEN g.ended AND g.status IN ('completed', 'skipped') THEN NULL
                ELSE a.kept END,
            changed_in = CASE WHEN g.ended AND g.status IN ('completed', 'skipped')
                AND (a.kept IS NULL OR CAST(a.kept -> 'output' AS text)
                    IS DISTINCT FROM CAST(coalesce(g.output, 'null') AS text))
                THEN a.round ELSE a.changed_in END,
            error = CASE WHEN g.ended THEN g.error ELSE a.error END,
            error_class = CASE WHEN g.ended THEN g.error_class ELSE a.error_class END,
            ready_at = CASE WHEN g.ended
                THEN clock_timestamp() + make_interval(secs => g.ready_in_s) ELSE a.ready_at END,
            waits_for = CASE WHEN g.ended THEN g.waits_for ELSE a.waits_for END,
            retries = a.retries + g.retry,
            recoveries = a.recoveries + g.recovery,
            finished_at = CASE WHEN g.ended AND g.status NOT IN ('pending', 'waiting')
                THEN clock_timestamp() ELSE a.finished_at END
        FROM given g WHERE a.id = g.id
    ), attempted AS (
        UPDATE attempts t SET outcome = g.outcome, error = g.error, error_class = g.error_class,
            finished_at = clock_timestamp(), first_token_s = g.first_token_s,
            finish_reason = g.finish_reason
        FROM given g WHERE g.ended AND g.status <> 'waiting'  -- a waiting agent keeps its attempt
            AND t.agent_run_id = g.id AND t.number = g.attempt
    ), noted AS (
        INSERT INTO events (run_id, agent_run_id, attempt, type, data)
        SELECT run_id, id, attempt, event, data FROM given WHERE ended
    ), booked AS (
        INSERT INTO cost_entries (call_id, run_id, agent_run_id, attempt, workflow_id, workflow,
            version, tenant, agent, module, provider, model, model_answered, kind, outcome,
            request_id, input_tokens, cached_tokens, cache_write_tokens, cache_write_1h_tokens,
            output_tokens, reasoning_tokens, citation_tokens, web_searches, container_seconds,
            usage, served, price_version, budget_ids, cost_usd, saved_usd, seconds, corrects,
            expected_tokens, bound_tokens, finish_reason)
        SELECT * FROM jsonb_to_recordset(CAST(:entries AS jsonb)) AS e(
            call_id uuid, run_id uuid, agent_run_id uuid, attempt int, workflow_id uuid,
            workflow text, version int, tenant text, agent text, module text, provider text,
            model text, model_answered text, kind text, outcome text, request_id text,
            input_tokens int, cached_tokens int, cache_write_tokens int, cache_write_1h_tokens int,
            output_tokens int, reasoning_tokens int, citation_tokens int, web_searches int,
            container_seconds int, usage jsonb, served jsonb, price_version text,
            budget_ids uuid[], cost_usd numeric, saved_usd numeric, seconds real,
            corrects text, expected_tokens int, bound_tokens int, finish_reason text)
    )
    UPDATE budgets b SET held_usd = b.held_usd - t.held, spent_usd = b.spent_usd + t.spent,
        overdrawn_usd = CASE WHEN b.soft THEN 0 ELSE greatest(0,
            b.spent_usd + t.spent + b.held_usd - t.held - b.limit_usd) END
    FROM jsonb_to_recordset(CAST(:budgets AS jsonb)) AS t(id uuid, held numeric, spent numeric)
    WHERE b.id = t.id
    RETURNING b.id, b.scope, b.subject, b.period, b.limit_usd, b.spent_usd, b.overdrawn_usd,
        b.thresholds, b.reached, b.awaited, t.held AS released, t.spent AS booked
""")

# passed: [{id, reached, run_id, agent_run_id, attempt, data}]. Spending outside the workers may
# belong to no run. In this case no history has the event.
NOTE_THRESHOLDS: TextClause = text("""
    WITH passed AS (
        SELECT * FROM jsonb_to_recordset(CAST(:passed AS jsonb)) AS p(
            id uuid, reached int, run_id uuid, agent_run_id uuid, attempt int, data jsonb)
    ), marked AS (
        UPDATE budgets b SET reached = t.reached
        FROM (SELECT id, max(reached) AS reached FROM passed GROUP BY id) t WHERE b.id = t.id
    )
    INSERT INTO events (run_id, agent_run_id, attempt, type, data)
    SELECT p.run_id, p.agent_run_id, p.attempt, 'budget_threshold', p.data
    FROM passed p JOIN runs ON runs.id = p.run_id ORDER BY p.reached
""")

# ---- leases: the heartbeat renews leases, and the watchdog takes leases away -------------------

# leases: [{id, attempt}]. If a lease is missing in the result, the process has lost it.
RENEW_LEASES: TextClause = text("""
    WITH mine AS (
        SELECT a.id FROM agent_runs a
        JOIN jsonb_to_recordset(CAST(:leases AS jsonb)) AS l(id uuid, attempt int)
            ON a.id = l.id AND a.attempt = l.attempt
        WHERE a.status = 'running' ORDER BY a.id FOR NO KEY UPDATE OF a
    )
    UPDATE agent_runs a
    SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease_s)
    FROM mine, runs WHERE a.id = mine.id AND runs.id = a.run_id
    RETURNING a.id, a.attempt, runs.stop_as, runs.status = 'paused' AS paused
""")

LOCK_EXPIRED: TextClause = text("""
    SELECT a.id, a.run_id, a.name, a.attempt, a.retries, a.recoveries, a.worker FROM agent_runs a
    WHERE a.status = 'running' AND a.lease_expires_at < clock_timestamp()
    ORDER BY a.id LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED
""")

HOLDS_OF_AGENT_RUNS: TextClause = text("""
    SELECT h.call_id, h.amount_usd, h.budget_ids, a.run_id, h.agent_run_id, h.attempt,
        r.workflow_id, w.name AS workflow, w.version, r.tenant, split_part(a.name, '[', 1) AS agent,
        a.module, coalesce(h.provider, a.provider) AS provider, coalesce(h.model, a.model) AS model
    FROM holds h JOIN agent_runs a ON a.id = h.agent_run_id
    JOIN runs r ON r.id = a.run_id JOIN workflows w ON w.id = r.workflow_id
    WHERE h.agent_run_id = ANY(CAST(:ids AS uuid[]))
""")
