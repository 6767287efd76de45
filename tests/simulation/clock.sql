-- This schema is before pg_catalog in the search path. So the product's own SQL reads the
-- simulation's clock, and gets ids that follow from the seed. %(clock)s: path of the clock's file.

CREATE SCHEMA simulation;

-- The clock is a file and not a row, because a statement would see the row of its old snapshot.
CREATE FUNCTION simulation.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS $$ SELECT pg_catalog.pg_read_file(%(clock)s)::timestamptz $$;

-- The start time of the transaction; its BEGIN has noted this time.
CREATE FUNCTION simulation.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT pg_catalog.current_setting('simulation.began')::timestamptz $$;

CREATE SEQUENCE simulation.ids;
CREATE FUNCTION simulation.gen_random_uuid() RETURNS uuid LANGUAGE sql VOLATILE
    AS $$ SELECT pg_catalog.md5(pg_catalog.nextval('simulation.ids')::text)::uuid $$;

-- When the tables were made, their defaults were bound to pg_catalog. Bind them to this schema.
DO $$
DECLARE found record;
BEGIN
    FOR found IN
        SELECT table_name, column_name, column_default FROM information_schema.columns
        WHERE table_schema = 'public' AND column_default IN ('now()', 'clock_timestamp()')
    LOOP
        EXECUTE format('ALTER TABLE public.%%I ALTER COLUMN %%I SET DEFAULT simulation.%%s',
            found.table_name, found.column_name, found.column_default);
    END LOOP;
END $$;

-- The invariants need facts that the product's tables do not keep: every hold with its time, and
-- every change of an agent run.
CREATE TABLE simulation.placed (
    number bigserial, run_id uuid, agent_run_id uuid, call_id uuid, at timestamptz, barred bool);
CREATE FUNCTION simulation.note_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO simulation.placed (run_id, agent_run_id, call_id, at, barred)
    SELECT a.run_id, a.id, NEW.call_id, simulation.clock_timestamp(), (
        SELECT bool_or(b.closed OR b.paused) FROM budgets b
        WHERE b.id = a.run_id OR b.id = ANY(r.ancestors))
    FROM agent_runs a JOIN runs r ON r.id = a.run_id WHERE a.id = NEW.agent_run_id;
    RETURN NULL;
END $$;
CREATE TRIGGER note_hold AFTER INSERT ON holds
    FOR EACH ROW EXECUTE FUNCTION simulation.note_hold();

CREATE TABLE simulation.steps (
    number bigserial, run_id uuid, agent_run_id uuid, name text, at timestamptz, old_status text,
    status text, old_attempt int, attempt int, output jsonb, old_output jsonb);
CREATE FUNCTION simulation.note_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO simulation.steps (run_id, agent_run_id, name, at, old_status, status, old_attempt,
        attempt, output, old_output)
    VALUES (NEW.run_id, NEW.id, NEW.name, simulation.clock_timestamp(), OLD.status, NEW.status,
        OLD.attempt, NEW.attempt, NEW.output, OLD.output);
    RETURN NULL;
END $$;
CREATE TRIGGER note_step AFTER UPDATE ON agent_runs
    FOR EACH ROW WHEN ((OLD.status, OLD.attempt, OLD.output)
        IS DISTINCT FROM (NEW.status, NEW.attempt, NEW.output))
    EXECUTE FUNCTION simulation.note_step();

CREATE FUNCTION simulation.empty() RETURNS void LANGUAGE plpgsql AS $$
DECLARE found record;
BEGIN
    SET LOCAL session_replication_role = replica;  -- else the ledger refuses DELETE
    FOR found IN SELECT table_schema, table_name FROM information_schema.tables
        WHERE table_type = 'BASE TABLE' AND table_schema IN ('public', 'simulation')
            AND table_name <> 'alembic_version'
    LOOP
        EXECUTE format('DELETE FROM %%I.%%I', found.table_schema, found.table_name);
    END LOOP;
    PERFORM setval(pg_get_serial_sequence('public.events', 'id'), 1, false),
        setval('simulation.ids', 1, false);
END $$;
