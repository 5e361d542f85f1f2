-- The first schema. Everything here runs unchanged on Citus: rrd_bundle and rrd become reference
-- tables, ts is distributed by rrd_id (so storage options are set before anything else happens to it).

-- One row per distinct combination of what series share. steps_s, sizes and widths hold one element
-- per archive, finest first; retention says the same as steps_s and sizes, for people.
CREATE TABLE rrd_bundle (
    id           bigserial PRIMARY KEY,
    retention    text NOT NULL,
    cf           text NOT NULL,
    xff          float8 NOT NULL,
    on_duplicate text NOT NULL,
    steps_s      bigint[] NOT NULL,
    sizes        bigint[] NOT NULL,
    widths       int[] NOT NULL,
    UNIQUE (steps_s, sizes, widths, cf, xff, on_duplicate)
);

-- One row per series. tags is NULL for a name without tags. The collation makes LIKE 'prefix%' an
-- index condition and sorts as Python does. No foreign key to rrd_bundle: its check takes 6 of the 9 µs
-- that a new series costs, and bundles are never deleted.
CREATE TABLE rrd (
    id         bigserial PRIMARY KEY,
    name       text COLLATE "C" NOT NULL UNIQUE,
    tags       jsonb,
    bundle_id  bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_s     bigint
);

-- One row per chunk; FORMAT.md draws it. No foreign key: it would cost a look-up for each chunk written.
CREATE TABLE ts (
    rrd_id  bigint NOT NULL,
    archive smallint NOT NULL,
    n       int NOT NULL,
    start_s bigint NOT NULL,
    dp      float8[] NOT NULL,
    PRIMARY KEY (rrd_id, archive, n)
) WITH (fillfactor = 100);

-- A row of 480 slots (3,840 bytes) is compressed in line and never leaves for the TOAST table.
ALTER TABLE ts ALTER COLUMN dp SET STORAGE MAIN;

DO $$
BEGIN
    ALTER TABLE ts ALTER COLUMN dp SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    RAISE NOTICE 'this PostgreSQL was built without lz4; chunks are compressed with pglz';
END
$$;

CREATE TABLE event (
    id   bigserial PRIMARY KEY,
    what text NOT NULL,
    tags text[] NOT NULL DEFAULT '{}',
    data text NOT NULL DEFAULT '',
    at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX event_at ON event (at);

-- What the journal needs to know; one row.
CREATE TABLE server_state (
    only_row   bool PRIMARY KEY DEFAULT true CHECK (only_row),
    journal_id text NOT NULL DEFAULT '',
    late_seq   bigint NOT NULL DEFAULT 0
);

INSERT INTO server_state DEFAULT VALUES;

-- Slots of one lap: a known value of the new array replaces, NaN never does; an array of another width
-- is of another layout and replaces the old one. A function and not a sub-select because Citus refuses
-- sub-selects inside DO UPDATE.
CREATE FUNCTION tgres_merge(old float8[], new float8[]) RETURNS float8[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
BEGIN
    IF array_length(old, 1) <> array_length(new, 1) THEN
        RETURN new;
    END IF;
    FOR i IN 1 .. array_length(new, 1) LOOP
        IF new[i] <> 'NaN'::float8 THEN
            old[i] := new[i];
        END IF;
    END LOOP;
    RETURN old;
END
$$;

-- For SQL users: every slot of every chunk that is within its archive's retention and not in the
-- future; unknown slots show as NULL, slots without a chunk don't show.
-- It runs from the slots to the chunks and not the other way about, because only then a condition on
-- time decides which chunks are read: the planner can't turn "start_s + i * step_s > x" round, but it
-- can filter the generated slots first, and each chunk that is left is one look-up by the full primary
-- key (LIMIT 1 keeps that a look-up), remembered for the slots that follow (Memoize). OFFSET 0 keeps
-- "chunk" one value, the key of that memory. "|| '{}'" makes the remembered array a plain one: of a
-- compressed one each subscript would decompress it all.
-- A condition on step_s is worth writing: it leaves the other archives' slots ungenerated.
CREATE VIEW tv AS
SELECT r.name,
       r.tags,
       a.step_s,
       (a.number - 1)::smallint AS archive,
       to_timestamp(s.slot * a.step_s) AS time,
       nullif(t.dp[s.slot % a.width + 1], 'NaN'::float8) AS value
FROM rrd r
JOIN rrd_bundle b ON b.id = r.bundle_id
CROSS JOIN LATERAL unnest(b.steps_s, b.sizes, b.widths) WITH ORDINALITY
    AS a (step_s, size, width, number)
CROSS JOIN LATERAL (
    SELECT generate_series(latest.slot - a.size + 1, latest.slot) AS slot
    FROM (SELECT floor(extract(epoch FROM now()))::bigint / a.step_s AS slot) latest
) s
CROSS JOIN LATERAL (SELECT s.slot / a.width AS chunk OFFSET 0) c
CROSS JOIN LATERAL (
    SELECT ts.dp || '{}'::float8[] AS dp
    FROM ts
    WHERE ts.rrd_id = r.id
      AND ts.archive = a.number - 1
      AND ts.n = c.chunk % ((a.size + a.width - 1) / a.width + 1)
      AND ts.start_s = c.chunk * a.width * a.step_s
    LIMIT 1
) t;
